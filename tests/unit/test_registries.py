"""What a new alert format, metric source, notification channel or check of `heal doctor` lacks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.commands.doctor import CHECKS
from app.config import Settings
from app.connectors.alerts.delivery import AlertFormat
from app.connectors.kinds import (
    ChannelKind,
    GitOpsKind,
    LogSourceKind,
    MetricSourceKind,
    chosen_metrics,
    configured_gitops,
)
from app.connectors.registry import (
    ALERT_FORMATS,
    CHANNELS,
    CHAT_PATHS,
    GITOPS,
    LOG_SOURCES,
    METRIC_SOURCES,
    SILENCE_SOURCES,
)
from app.errors import ConfigurationError
from app.main import create_app

ROOT = Path(__file__).parents[2]
CONNECTORS = ROOT / "app" / "connectors"
REGISTRY = CONNECTORS / "registry.py"

REGISTERED = {
    "AlertFormat",
    "Dialect",
    "GitOpsKind",
    "MetricSourceKind",
    "SilenceSourceKind",
    "LogSourceKind",
    "ChannelKind",
}
"""What a vendor's module constructs, for the registry to list."""

SEVERAL_VENDORS = {"app.connectors.alerts", "app.connectors.chat"}
"""Folders with one file for each vendor."""

METHODS = {
    "metric source": {"sli", "sli_range", "telemetry", "ping"},
    "notification channel": {"begin", "refresh", "reply", "find"},
    "silence source": {"concerning", "active"},
    "log source": {"tail", "ping"},
    "GitOps controller": {"owner_of", "application", "rehearse"},
}
"""By these a class is known as an adapter of its port."""


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(CONNECTORS.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def _listed() -> set[str]:
    """The modules that the registry imports, by their full names."""
    tree = ast.parse(REGISTRY.read_text(encoding="utf-8"))
    return {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_everything_that_a_vendor_registers_is_in_the_registry() -> None:
    """A format, source or channel that is not listed never runs."""
    listed = _listed()
    lacking = [
        f"{name} has {call.func.id}(...) and no line in app/connectors/registry.py"
        for name, tree in _modules()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in REGISTERED
        if name not in listed
    ]
    assert lacking == []


def test_every_adapter_has_a_registration() -> None:
    """A folder with an adapter of a port also says how it is registered."""
    listed = _listed()
    of_one_vendor = {name.rpartition(".")[0] for name in listed} - SEVERAL_VENDORS
    lacking = [
        f"{name}.{node.name} is a {kind} without a registration"
        for name, tree in _modules()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases)
        for kind, methods in METHODS.items()
        if methods <= {one.name for one in node.body if isinstance(one, ast.AsyncFunctionDef)}
        and name not in listed
        and name.rpartition(".")[0] not in of_one_vendor
    ]
    assert lacking == []


def test_every_check_of_a_connector_is_run() -> None:
    """`heal doctor` runs what a connector offers as `check(run: DoctorRun)`."""
    run = {f"{check.__module__}.{check.__name__}" for check in CHECKS}
    lacking = [
        f"{name}.check is not in CHECKS of app/cli/commands/doctor.py"
        for name, tree in _modules()
        for node in tree.body
        if isinstance(node, ast.AsyncFunctionDef) and node.name == "check" and f"{name}.check" not in run
    ]
    assert lacking == []


def _undocumented(settings: tuple[str, ...]) -> Iterator[str]:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    for setting in settings:
        if setting.lower() not in Settings.model_fields:
            yield f"app/config.py lacks {setting}"
        if f"\n{setting}=" not in example:
            yield f".env.example lacks {setting}"


def _absent(*files: str) -> Iterator[str]:
    return (f"{file} is missing" for file in files if not (ROOT / file).is_file())


def _unmentioned(words: str) -> Iterator[str]:
    pages = [*ROOT.glob("docs/*.md")]
    if not any(words in page.read_text(encoding="utf-8") for page in pages):
        yield f"no page of docs/ has {words!r}"


@pytest.mark.parametrize("kind", METRIC_SOURCES, ids=lambda kind: kind.name)
def test_a_metric_source_is_complete(kind: MetricSourceKind) -> None:
    """Its settings, the contract suite over it, and its page."""
    settings = (*kind.settings, *kind.queries.values())
    assert [
        *_undocumented(settings),
        *_absent(f"tests/contract/test_metrics_{kind.name}.py"),
        *_unmentioned(kind.settings[0]),
    ] == []


@pytest.mark.parametrize("kind", LOG_SOURCES, ids=lambda kind: kind.name)
def test_a_log_source_is_complete(kind: LogSourceKind) -> None:
    """Its settings, the contract suite over it, and its page."""
    assert [
        *_undocumented(kind.settings),
        *_absent(f"tests/contract/test_logs_{kind.name}.py"),
        *_unmentioned(kind.settings[0]),
    ] == []


@pytest.mark.parametrize("kind", GITOPS, ids=lambda kind: kind.name)
def test_a_gitops_controller_is_complete(kind: GitOpsKind) -> None:
    """Its settings, the contract suite over it and over the real servers, and its page."""
    assert [
        *_undocumented(kind.settings),
        *_absent("tests/contract/test_gitops_standin.py", f"tests/gitops/test_{kind.name}.py"),
        *_unmentioned(kind.settings[0]),
    ] == []


@pytest.mark.parametrize("kind", CHANNELS, ids=lambda kind: kind.name)
def test_a_channel_is_complete(kind: ChannelKind) -> None:
    """Its settings, the contract suite over it, and its page."""
    settings = (kind.setting, *((kind.inbound.setting,) if kind.inbound is not None else ()))
    assert [
        *_undocumented(settings),
        *_absent(f"tests/contract/test_channel_{kind.name}.py"),
        *_unmentioned(kind.setting),
    ] == []


@pytest.mark.parametrize("one", ALERT_FORMATS, ids=lambda one: one.name)
def test_an_alert_format_is_complete(one: AlertFormat) -> None:
    """The setting of its token, its tests, and its page."""
    assert [
        *_undocumented(() if one.token is None else (one.token.setting,)),
        *_absent(f"tests/unit/test_{one.name}.py"),
        *_unmentioned(f"/webhooks/{one.name}"),
    ] == []


def test_each_format_and_each_chat_that_receives_has_its_route() -> None:
    """Routes and their descriptions follow from the registry."""
    paths = create_app(Settings(_env_file=None)).openapi()["paths"]
    described = {
        path: paths[path]["post"]["requestBody"]["description"] for path in paths if "webhooks" in path
    }
    assert set(described) == {*CHAT_PATHS, *(f"/webhooks/{one.name}" for one in ALERT_FORMATS)}
    for one in ALERT_FORMATS:
        assert described[f"/webhooks/{one.name}"] == one.payload


def test_names_are_unique() -> None:
    """Routes, sources of signals and checks are addressed by these names."""
    for names in (
        [kind.name for kind in METRIC_SOURCES],
        [*(one.name for one in ALERT_FORMATS), *(kind.name for kind in CHANNELS if kind.inbound)],
        [kind.name for kind in CHANNELS],
        [kind.title for kind in SILENCE_SOURCES],
        [kind.name for kind in LOG_SOURCES],
    ):
        assert len(names) == len(set(names))


def test_the_agent_works_with_one_gitops_controller() -> None:
    """None, one, and an error that names the settings of both."""
    none, url = Settings(_env_file=None), "http://127.0.0.1:9"
    both = Settings.model_validate({"argocd_url": url, "flux_enabled": True})
    assert configured_gitops(GITOPS, none) is None
    (first, second) = GITOPS
    assert configured_gitops(GITOPS, both.model_copy(update={"flux_enabled": False})) is first
    assert configured_gitops(GITOPS, both.model_copy(update={"argocd_url": None})) is second
    with pytest.raises(ConfigurationError, match="ARGOCD_URL and FLUX_ENABLED are set"):
        configured_gitops(GITOPS, both)


def test_a_metric_source_is_chosen_by_name_or_by_its_settings() -> None:
    """One that is configured needs no choice; a choice that cannot work is an error that names the fix."""
    configured = Settings.model_validate({"prometheus_url": "http://127.0.0.1:9"})
    (first, *_) = METRIC_SOURCES
    assert chosen_metrics(METRIC_SOURCES, Settings(_env_file=None)) is None
    assert chosen_metrics(METRIC_SOURCES, configured) is first
    assert (
        chosen_metrics(METRIC_SOURCES, configured.model_copy(update={"metrics_source": first.name})) is first
    )
    for changed, words in (
        (
            Settings.model_validate({"metrics_source": "graphite"}),
            "METRICS_SOURCE=graphite is unknown; use one of",
        ),
        (Settings.model_validate({"metrics_source": first.name}), f"needs {first.settings[0]}"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            chosen_metrics(METRIC_SOURCES, changed)
    with pytest.raises(ConfigurationError, match="several metric sources are configured: set METRICS_SOURCE"):
        chosen_metrics((first, first), configured)
