"""A program that is built once from its Go module into the cache folder of the bed.

The version is that of the module's `go.mod`, which go.sum pins by content.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testbed import TestbedError
from testbed.binaries import go_program, locked


@dataclass(frozen=True, slots=True, kw_only=True)
class GoTool:
    """One program of a module in a folder beside this file."""

    name: str
    module: str
    """The required module, such as `helm.sh/helm/v4`."""
    package: str
    """The package that is built."""
    within: str = ""
    """The folder that holds the folder of the module; empty: this one."""
    version_variable: str | None = None
    """The string variable that holds the version, where the program reports it."""

    @property
    def folder(self) -> Path:
        return Path(__file__).parent / self.within / self.name

    def version(self) -> str:
        """The version that `go.mod` asks for, such as `v1.22.2`."""
        text = (self.folder / "go.mod").read_text()
        found = re.search(rf"^(?:require )?\s*{re.escape(self.module)} (v\S+)$", text, re.MULTILINE)
        if found is None:
            raise TestbedError(f"{self.folder / 'go.mod'} does not require {self.module}")
        return found.group(1)

    def ensure(self, tell: Callable[[str], None] = print) -> Path:
        """The program: from the cache, else built now, which takes minutes. Raises `TestbedError`."""
        root = os.environ.get("HEAL_TESTBED_CACHE")
        cache = Path(root) if root else Path.home() / ".cache" / "heal-testbed"
        program = cache / f"{self.name}-{self.version()}" / self.name
        if not os.access(program, os.X_OK):
            program.parent.mkdir(parents=True, exist_ok=True)
            with locked(program.parent / ".lock"):
                if not os.access(program, os.X_OK):  # again: another process may have built it meanwhile
                    self._build(program, tell)
        return program

    def _build(self, program: Path, tell: Callable[[str], None]) -> None:
        tell(f"building {self.name} {self.version()} into {program.parent}; this happens once")
        unfinished = program.with_name(f".{self.name}.building")
        flags = "-s -w"
        if self.version_variable is not None:
            flags += f" -X {self.version_variable}={self.version().removeprefix('v')}"
        command = [
            *(go_program(), "build", "-p=1", "-trimpath", "-ldflags", flags),
            *("-o", str(unfinished), self.package),
        ]
        environment = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=readonly"}
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise TestbedError(f"go build {self.package} failed:\n{done.stdout[-4000:]}")
            unfinished.replace(program)
        finally:
            unfinished.unlink(missing_ok=True)
