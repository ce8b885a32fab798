"""The checks of `heal doctor` that are the same for every vendor of a kind.

Each function takes the registered kinds and gives a check; what differs between
vendors is in their registration.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from app.agent.evidence.format import counted
from app.agent.ids import ServiceKey
from app.agent.models import SliSample
from app.agent.notifications.channel import Channel
from app.clock import Clock
from app.config import Settings
from app.connectors.alerts.delivery import AlertFormat
from app.connectors.findings import Check, DoctorRun, Finding, fail, ok, warn
from app.connectors.git.connect import connect_repositories
from app.connectors.git.program import git_program
from app.connectors.kinds import (
    ChannelKind,
    ConnectedLogs,
    ConnectedMetrics,
    ConnectedSilences,
    GitOpsKind,
    LogSourceKind,
    MetricSourceKind,
    SilenceSourceKind,
    chosen_metrics,
    configured_gitops,
    constructed_channels,
    first_configured,
)
from app.connectors.observability import Indicator
from app.errors import AgentError, ConfigurationError, PermanentError

_MOST_SERVICES_TRIED = 20
_INDICATORS = {
    Indicator.ERROR_RATE: "error rate",
    Indicator.P95_LATENCY_MS: "p95 latency",
    Indicator.REQUEST_RATE: "request rate",
}
_CORRECT = "correct the setting it names"
C = TypeVar("C", ConnectedSilences, ConnectedLogs)


def metrics(kinds: Sequence[MetricSourceKind]) -> Check:
    """Whether the metric source answers, and has data for each query."""

    async def check(run: DoctorRun) -> AsyncIterator[Finding]:
        try:
            kind = chosen_metrics(kinds, run.settings)
        except ConfigurationError as error:
            yield fail("metrics", str(error), _CORRECT)
            return
        if kind is None:
            yield warn(
                "metrics",
                "not configured: error rate and latency are available from posted metrics only",
                "set " + " or ".join(one.settings[0] for one in kinds),
            )
            return
        try:
            source = kind.connect(run.settings)
        except ConfigurationError as error:
            yield fail(kind.name, str(error), _CORRECT)
            return
        try:
            await source.ping()
            yield ok(kind.name, "answers queries")
            services = (run.services or ())[:_MOST_SERVICES_TRIED]
            async for finding in _queries(kind, source, services, run.clock):
                yield finding
        except AgentError as error:
            yield fail(kind.name, str(error), "check " + " and ".join(kind.settings))
        finally:
            await source.aclose()

    return check


async def _queries(
    kind: MetricSourceKind, source: ConnectedMetrics, services: Sequence[ServiceKey], clock: Clock
) -> AsyncIterator[Finding]:
    """Whether each query returns data for at least one service of the cluster."""
    if not services:
        yield warn("queries", "not tested: no service known", "connect a cluster, and label its workloads")
        return
    samples: list[SliSample] = []
    faults: list[str] = []
    for key in services:  # one at a time, to limit the load on the source
        try:
            samples.append(await source.sli(key, clock.now()))
        except PermanentError as error:
            faults.append(str(error))
    if faults:
        yield fail(
            "queries",
            f"{len(services) - len(samples)} of {len(services)} services cannot be measured: " + faults[0],
            f"run the query in {kind.title}: it must return one current value per service",
        )
    if not samples:
        return
    for indicator, setting in kind.queries.items():
        name = _INDICATORS[indicator]
        having = sum(getattr(sample, indicator) is not None for sample in samples)
        if having:
            yield ok("queries", f"{name}: data for {having} of {len(samples)} tested services")
        else:
            yield fail(
                "queries",
                f"{name}: no data for any of {len(samples)} tested services, such as {services[0]}",
                f"run the query of {setting} in {kind.title}, and adapt its labels",
            )


def silences(kinds: Sequence[SilenceSourceKind]) -> Check:
    """Whether silences can be read; the agent does not act while they cannot."""

    async def check(run: DoctorRun) -> AsyncIterator[Finding]:
        for kind in kinds:
            if kind.configured(run.settings):
                yield await _silences(kind, run)

    return check


async def _silences(kind: SilenceSourceKind, run: DoctorRun) -> Finding:
    async def read(source: ConnectedSilences) -> str:
        active = await source.active(run.clock.now())
        return f"{kind.title} reachable; {counted(len(active), 'active silence')}"

    return await _asked("silences", kind.settings, lambda: kind.connect(run.settings), read)


def logs(kinds: Sequence[LogSourceKind]) -> Check:
    """Whether the source of logs answers queries."""

    async def check(run: DoctorRun) -> AsyncIterator[Finding]:
        kind = first_configured(kinds, run.settings)
        if kind is not None:
            connect = partial(kind.connect, run.settings, run.clock)
            yield await _asked(kind.name, kind.settings, connect, _answers)

    return check


async def _answers(source: ConnectedLogs) -> str:
    await source.ping()
    return "answers queries"


async def _asked(
    check: str, settings: Sequence[str], connect: Callable[[], C], ask: Callable[[C], Awaitable[str]]
) -> Finding:
    """What a source answers, in words; a failure names the settings to check."""
    try:
        source = connect()
    except ConfigurationError as error:
        return fail(check, str(error), _CORRECT)
    try:
        return ok(check, await ask(source))
    except AgentError as error:
        return fail(check, str(error), "check " + " and ".join(settings))
    finally:
        await source.aclose()


def gitops(kinds: Sequence[GitOpsKind]) -> Check:
    """Whether the GitOps controller answers and accepts the agent's account."""

    async def check(run: DoctorRun) -> AsyncIterator[Finding]:
        kind = configured_gitops(kinds, run.settings)
        if kind is None:
            if run.settings.git_revert is not None:
                yield _unused_reverts(kinds)
            return
        try:
            connected = kind.connect(run.settings, None)
        except ConfigurationError as error:
            yield fail(kind.name, str(error), _CORRECT)
            return
        try:
            version = await connected.ping()
            yield ok(kind.name, f"{kind.title} {version} accepts the account of the agent")
        except AgentError as error:
            yield fail(kind.name, str(error), "check " + " and ".join(kind.settings))
        finally:
            await connected.close()
        yield _reverts(run.settings)

    return check


def _unused_reverts(kinds: Sequence[GitOpsKind]) -> Finding:
    """Only the rollback of a GitOps controller is followed by a revert in Git."""
    return warn(
        "reverts",
        f"GIT_REVERT has no effect: neither {' nor '.join(one.title for one in kinds)} is configured",
        f"set {' or '.join(one.settings[0] for one in kinds)}, or remove GIT_REVERT",
    )


def _reverts(settings: Settings) -> Finding:
    """How the revert in Git is proposed after a rollback."""
    way = settings.git_revert
    if way is None:
        return warn(
            "reverts",
            "not configured: after a rollback, automated sync stays off until people revert it in Git",
            "set GIT_REVERT and GIT_REPOSITORIES",
        )
    try:
        connect_repositories(settings)
    except ConfigurationError as error:
        return fail("reverts", str(error), _CORRECT)
    try:
        git_program()  # a dry run writes to no repository, and starts without it
    except ConfigurationError as error:
        return warn("reverts", f"{error}; without a dry run the agent would not start", _CORRECT)
    repositories = counted(len(settings.git_repositories), "repository", "repositories")
    return ok("reverts", f"proposed as {way} in {repositories}")


def deliveries(formats: Sequence[AlertFormat]) -> Check:
    """Who may send alerts of each format."""

    async def check(run: DoctorRun) -> AsyncIterator[Finding]:
        for one in formats:
            yield _accepted(one, run)

    return check


def _accepted(one: AlertFormat, run: DoctorRun) -> Finding:
    token = one.token
    if token is not None and token.of(run.settings) is not None:
        return ok(one.name, f"a token is set; send it as {token.placed}")
    if run.settings.identity_required:
        without = f"; no {token.setting}" if token is not None else ""
        return ok(one.name, f"accepted with an API token of scope ingest{without}")
    return warn(
        one.name,
        "no token: accepting deliveries from localhost only",
        "set REQUIRE_IDENTITY=true and create a token with `heal token create`"
        if token is None
        else f"set {token.setting}, and the same value in {one.title}",
    )


def people(kinds: Sequence[ChannelKind]) -> Check:
    """Whether notifications reach a channel; each channel is checked, and nothing is posted."""

    async def check(run: DoctorRun) -> AsyncIterator[Finding]:
        settings = run.settings
        names = [kind.setting for kind in kinds]
        named = ", ".join(kind.setting for kind in kinds if kind.configured(settings))
        if not named:
            yield warn(
                "people",
                "no notification channel: escalations are recorded only",
                f"set {', '.join(names[:-1])} or {names[-1]}",
            )
            return
        if settings.dry_run:
            yield ok("people", f"{named} set; a dry run sends no notifications")
            for kind in kinds:
                if kind.configured(settings) and (problem := kind.unusable(settings)) is not None:
                    yield warn("people", f"{problem}; without a dry run the agent would not start", _CORRECT)
            return
        try:
            channels = constructed_channels(kinds, settings)
        except ConfigurationError as error:
            yield fail("people", str(error), _CORRECT)
            return
        for channel in channels:
            yield await _reachable(channel)

    return check


async def _reachable(channel: Channel) -> Finding:
    try:
        await channel.check()
    except AgentError as error:
        return fail(
            "people",
            f"{channel.name}: {error}",
            "correct its settings; pending notifications are sent later",
        )
    finally:
        await channel.aclose()
    return ok("people", f"{channel.name} is reachable")
