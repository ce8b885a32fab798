"""The rules of the layout: folder sizes, layers that cover every module, where vendors are named."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from app.connectors.registry import ALERT_FORMATS, CHANNELS, GITOPS, LOG_SOURCES, METRIC_SOURCES

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"

MOST_MODULES = 15
LARGER = {"app/agent": 18}
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
    "datadog_api_client": "app/connectors/datadog",
    "slack_bolt": "app/connectors/chat/slack",
    "slack_sdk": "app/connectors/chat/slack",
    "confluent_kafka": "app/connectors/streams/kafka",
    "redis": "app/connectors/streams/redis",
    "regorus": "app/connectors/policy",
    "authlib": "app/connectors/sso",
    "opentelemetry": "app/connectors/traces",
}
"""A vendor's library and the only folder that imports it."""

FOR_ANY_VENDOR = {"webhook"}
"""A channel that is no vendor's."""


def _home(function: Callable[..., object]) -> str:
    """The folder of the vendor that defines it, or its file in a folder with one file for each vendor."""
    folder, _, module = function.__module__.replace(".", "/").rpartition("/")
    return f"{folder}/{module}.py" if folder in ("app/connectors/chat", "app/connectors/paging") else folder


_SOURCES = {kind.name: _home(kind.connect) for kind in METRIC_SOURCES}
VENDOR_NAMES = {
    **_SOURCES,
    **{kind.name: _home(kind.connect) for kind in GITOPS},
    **{kind.name: _home(kind.connect) for kind in LOG_SOURCES},
    **{kind.name: _home(kind.connect) for kind in CHANNELS if kind.name not in FOR_ANY_VENDOR},
    **{one.name: "app/connectors/alerts" for one in ALERT_FORMATS if one.name not in _SOURCES},
    "promql": "app/connectors/prometheus",
    "victoriametrics": "app/connectors/prometheus",
    "grafana": "app/connectors/alerts",
    "kafka": "app/connectors/streams",
    "confluent": "app/connectors/streams",
    "redis": "app/connectors/streams",
    "opa": "app/connectors/policy",
    "authlib": "app/connectors/sso",
    "lightkube": "app/connectors/kubernetes",
}
"""A vendor's name, and where it stands. The product is for Kubernetes, so that name stands anywhere."""

NAMED_BY_RIGHT = {
    "app/config.py": "the settings of every vendor",
    "app/settings": "the examples and the look-alikes of those settings",
    "app/connectors/registry.py": "the registration lines",
    "app/store/database": "the SQL servers",
}

NAMED_FOR_A_REASON = {
    ("app/agent/models/signals.py", "prometheus"): "the stored source of the agent's own samples",
    ("app/agent/identity/people.py", "slack"): "the stored way on which a person answered",
    ("app/redaction.py", "slack"): "the form of an address that is a credential",
    ("app/connectors/alerts/datadog.py", "datadog"): "its alert format stands beside the others",
    ("app/agent/actions/preconditions.py", "argocd"): "the stored owner of a workload",
    ("app/agent/workload.py", "argocd"): "the stored owner of a workload",
    ("app/connectors/kubernetes/views/owners.py", "argocd"): "the owner of a workload, by its marks",
    ("app/sandbox/cluster/views.py", "argocd"): "the owner of a simulated workload, by its marks",
    ("app/agent/actions/preconditions.py", "flux"): "the stored owner of a workload",
    ("app/agent/workload.py", "flux"): "the stored owner of a workload",
    ("app/connectors/kubernetes/views/owners.py", "flux"): "the owner of a workload, by its marks",
    ("app/sandbox/cluster/views.py", "flux"): "the owner of a simulated workload, by its marks",
    ("app/connectors/kubernetes/access.py", "flux"): "the setting that needs its rights",
    ("app/connectors/alerts/labels.py", "prometheus"): "a workload that reports about others",
    ("app/measures/process.py", "prometheus"): "the library of the text format that monitoring systems read",
    ("app/measures/exposition.py", "prometheus"): "as above",
}
"""Single files beside them."""


def _modules() -> list[Path]:
    return sorted(p for p in APP.rglob("*.py") if p.name != "__init__.py")


def _lines() -> Iterator[tuple[str, int, str]]:
    """Every line of the product: code, templates and scripts."""
    for path in sorted(APP.rglob("*")):
        if path.suffix in {".py", ".html", ".js", ".json"}:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                yield str(path.relative_to(ROOT)), number, line


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


def test_a_vendor_is_named_only_where_it_belongs() -> None:
    """A new vendor is its own folder, its settings and its registration line; nothing else changes."""
    named = re.compile(rf"(?<![a-z])(?:{'|'.join(VENDOR_NAMES)})(?![a-z])")
    found = [
        f"{path}:{number} names {vendor}: {line.strip()}"
        for path, number, line in _lines()
        for vendor in named.findall(line.lower())
        if not path.startswith((VENDOR_NAMES[vendor], *NAMED_BY_RIGHT))
        and (path, vendor) not in NAMED_FOR_A_REASON
    ]
    assert found == []


def test_each_exemption_is_needed() -> None:
    """An exemption that nothing uses hides the next mistake."""
    text = {path: (ROOT / path).read_text(encoding="utf-8").lower() for path, _ in NAMED_FOR_A_REASON}
    assert [one for one in NAMED_FOR_A_REASON if one[1] not in text[one[0]]] == []


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
