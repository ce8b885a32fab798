"""The rules of the layout: folder sizes, layers that cover every module, where vendors are named."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"

MOST_MODULES = 15
LARGER = {"app/agent": 21}
"""Folders above the limit; the numbers only shrink."""

ONE_FILE_PER_ENTRY = {
    "app/agent/actions",
    "app/agent/rules",
    "app/api/routes",
    "app/cli/commands",
    "app/connectors/alerts",
    "app/store/migrations/versions",
}

VENDOR_MODULES = {
    "lightkube": "app/connectors/kubernetes",
    "slack_bolt": "app/connectors/chat/slack",
    "slack_sdk": "app/connectors/chat/slack",
    "confluent_kafka": "app/connectors/streams/kafka",
    "redis": "app/connectors/streams/redis",
    "regorus": "app/connectors/policy",
    "authlib": "app/connectors/sso",
}
"""A vendor's library and the only folder that imports it."""


def _modules() -> list[Path]:
    return sorted(p for p in APP.rglob("*.py") if p.name != "__init__.py")


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_a_folder_holds_at_most_fifteen_modules() -> None:
    """A folder above the limit needs a split, unless it holds one file per entry."""
    counts = Counter(str(p.parent.relative_to(ROOT)) for p in _modules())
    crowded = {
        folder: count
        for folder, count in counts.items()
        if folder not in ONE_FILE_PER_ENTRY and count > LARGER.get(folder, MOST_MODULES)
    }
    assert crowded == {}


def test_every_module_stands_in_the_layer_contract() -> None:
    """A module outside every layer could import anything and be imported by anything."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = [
        name.strip("() ")
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
        for layer in contract["layers"]
        for name in layer.replace(":", "|").split("|")
    ]
    outside = [
        name
        for name in map(_name, _modules())
        if not any(name == layer or name.startswith(f"{layer}.") for layer in layers)
    ]
    assert outside == []


def test_only_a_vendors_own_folder_imports_its_library() -> None:
    """A vendor is replaced by replacing one folder."""
    strays = [
        f"{path.relative_to(ROOT)} imports {library}"
        for path in _modules()
        for library, folder in VENDOR_MODULES.items()
        if not str(path.relative_to(ROOT)).startswith(folder)
        and _imports(path.read_text(encoding="utf-8"), library)
    ]
    assert strays == []


def test_a_class_name_occurs_once() -> None:
    """Two classes of one name are taken for each other in reviews and tracebacks."""
    places: dict[str, list[str]] = {}
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def _imports(source: str, library: str) -> bool:
    lines = (line.strip() for line in source.splitlines())
    return any(line.startswith((f"import {library}", f"from {library}")) for line in lines)
