"""A folder of Rego as the embedded engine is given it: policies, their tests, and data.

Read by `app.connectors.policy.embedded` and `heal policy`. Folders mean what they mean to OPA:
every `*.rego` is a module, and a `data.json` stands under the path of its folder.
Hidden files and folders are left out, for a mounted ConfigMap keeps its copies there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.agent.ids import JsonObject
from app.settings.shipped import shipped
from app.wire.strict_json import UnreadableJson, decode

DATA_FILE = "data.json"
TEST_SUFFIX = "_test.rego"
_MAX_FILES = 500
_MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleProblem:
    """One thing wrong with a bundle, where it stands."""

    file: str
    message: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One Rego file."""

    file: str
    text: str

    @property
    def is_test(self) -> bool:
        return self.file.endswith(TEST_SUFFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Every file of a folder that could be read, and what was wrong with the others."""

    folder: Path
    modules: tuple[Module, ...]
    data: JsonObject
    problems: tuple[BundleProblem, ...] = ()

    def without_tests(self) -> Bundle:
        """What decides: the modules that are no tests."""
        kept = tuple(module for module in self.modules if not module.is_test)
        return Bundle(folder=self.folder, modules=kept, data=self.data, problems=self.problems)


def shipped_policies() -> Path:
    """The bundle that comes with the agent: in a source tree, else where a wheel puts it."""
    return shipped("policies")


def read_bundle(folder: Path) -> Bundle:
    """The files of a folder, sorted by name. Never raises: what cannot be read is a problem of the bundle."""
    problems: list[BundleProblem] = []
    modules: list[Module] = []
    data: JsonObject = {}
    try:
        files = _files(folder)
    except OSError as error:
        why = f"the folder of policies cannot be read ({error.strerror}); set POLICY_DIR to one that can"
        return Bundle(
            folder=folder, modules=(), data={}, problems=(BundleProblem(file=str(folder), message=why),)
        )
    if len(files) > _MAX_FILES:
        why = f"more than {_MAX_FILES} files of policy; set POLICY_DIR to their folder alone"
        return Bundle(
            folder=folder, modules=(), data={}, problems=(BundleProblem(file=str(folder), message=why),)
        )
    for file in files:
        text = _text(file)
        if isinstance(text, BundleProblem):
            problems.append(text)
        elif file.name == DATA_FILE:
            problems += _merge(data, file, file.parent.relative_to(folder).parts, text)
        else:
            modules.append(Module(file=str(file), text=text))
    if not any(not module.is_test for module in modules) and not problems:
        why = "no policy (*.rego) in this folder; set POLICY_DIR to one that has some"
        problems.append(BundleProblem(file=str(folder), message=why))
    return Bundle(folder=folder, modules=tuple(modules), data=data, problems=tuple(problems))


def _files(folder: Path) -> list[Path]:
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            found += _files(entry)
        elif entry.suffix == ".rego" or entry.name == DATA_FILE:
            found.append(entry)
    return found


def _text(file: Path) -> str | BundleProblem:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            return BundleProblem(file=str(file), message=f"longer than {_MAX_FILE_BYTES:,} bytes")
        return content.decode("utf-8")
    except OSError as error:
        return BundleProblem(file=str(file), message=f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return BundleProblem(file=str(file), line=line, message="the file is not UTF-8 text")


def _merge(data: JsonObject, file: Path, path: tuple[str, ...], text: str) -> Iterator[BundleProblem]:
    """Put a file's data under its folder's path, as OPA does; two files may not say the same thing."""
    try:
        content = decode(text.encode())
    except UnreadableJson as error:
        yield BundleProblem(file=str(file), message=str(error))
        return
    if not isinstance(content, dict):
        yield BundleProblem(file=str(file), line=1, message="the data of a policy is a JSON object")
        return
    for name in reversed(path):
        content = {name: content}
    taken = _merged(data, content)
    if taken is not None:
        yield BundleProblem(file=str(file), message=f"{taken!r} is given by another {DATA_FILE} too")


def _merged(into: JsonObject, content: JsonObject) -> str | None:
    for name, value in content.items():
        present = into.get(name)
        if name not in into:
            into[name] = value
        elif isinstance(present, dict) and isinstance(value, dict):
            taken = _merged(present, value)
            if taken is not None:
                return f"{name}.{taken}"
        else:
            return name
    return None
