"""The check of the settings that name services, environments and namespaces of the cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from app.agent.ids import ServiceKey
from app.config import Settings
from app.connectors.findings import DoctorRun, Finding, warn
from app.errors import ConfigurationError
from app.lists import some_of
from app.settings.services import read_services
from app.terms.clusters import all_namespaces

_MOST_SHOWN = 10


async def check(run: DoctorRun) -> AsyncIterator[Finding]:
    """Nothing where no cluster was reached."""
    if run.services is not None:
        for finding in mapping_findings(run.settings, run.services):
            yield finding


def mapping_findings(settings: Settings, services: Sequence[ServiceKey]) -> Iterator[Finding]:
    """Entries of the settings that match no service that the cluster has."""
    names = {f"{key.environment}/{key.service}" for key in services}
    environments = {key.environment for key in services}
    lacking = [
        f"{service} -> {place}"
        for service, place in settings.service_workloads.items()
        if service not in names
    ]
    if lacking:
        yield warn(
            "mappings",
            f"SERVICE_WORKLOADS names workloads that do not exist: {_shown(lacking)}",
            "correct the namespace and the name, or remove the entry",
        )
    empty = [
        f"{environment} -> {namespace}"
        for environment, namespace in all_namespaces(settings).items()
        if environment not in environments
    ]
    setting = "CLUSTERS" if settings.clusters else "ENVIRONMENT_NAMESPACES"
    if empty:
        yield warn(
            "mappings",
            f"{setting} names namespaces without a workload: {_shown(empty)}",
            "correct the namespace, or remove the entry",
        )
    unknown = sorted(_dependencies(settings) - names)
    if unknown:
        yield warn(
            "mappings",
            f"SERVICE_DEPENDENCIES names services that the cluster does not have: {_shown(unknown)}",
            "write environment/service as `heal doctor` and the cluster name them",
        )
    unknown = sorted(_with_terms(settings) - names)
    if unknown:
        yield warn(
            "mappings",
            f"SERVICES_FILE names services that the cluster does not have: {_shown(unknown)}",
            "correct the names; until then their objectives and their autonomy apply to no service",
        )
    yield from _freezes(settings, {key.service for key in services}, environments)


def _freezes(settings: Settings, services: set[str], environments: set[str]) -> Iterator[Finding]:
    """Freeze windows that are limited to unknown environments or services."""
    for window in settings.freeze_windows:
        unknown = [f"environment {name}" for name in window.environments if name not in environments]
        unknown += [f"service {name}" for name in window.services if name not in services]
        if unknown:
            yield warn(
                "mappings",
                f"FREEZE_WINDOWS: {window.name} names what the cluster does not have: {_shown(unknown)}",
                "correct the names; until then the window does not hold there",
            )


def _dependencies(settings: Settings) -> set[str]:
    named = set(settings.service_dependencies)
    for caller, callees in settings.service_dependencies.items():
        environment = caller.partition("/")[0]
        named |= {callee if "/" in callee else f"{environment}/{callee}" for callee in callees}
    return named


def _with_terms(settings: Settings) -> set[str]:
    """The services that a valid services file names, their dependencies included."""
    if settings.services_file is None:
        return set()
    try:
        terms = read_services(settings.services_file).values()
    except ConfigurationError:
        return set()  # reported by a check of its own
    named = {key for one in terms for key in (one.key, *(one.dependencies or ()))}
    return {f"{key.environment}/{key.service}" for key in named}


def _shown(names: Sequence[str]) -> str:
    return some_of(names, _MOST_SHOWN)
