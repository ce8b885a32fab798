"""The text that a monitoring system scrapes: counters of this process, and figures of all of them.

Names follow the conventions of the exposition format: base units, `_total` for
counters, ages as seconds. A figure that is unknown has no sample, and
`heal_figures_up` is 0 when the database did not answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from app.agent.audit.figures import FIGURES_WINDOW, AgentFigures
from app.agent.freshness.watchdog import WatchdogState
from app.agent.ports.streams import StreamProgress
from app.measures.process import Measures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_WINDOW = f"{FIGURES_WINDOW.total_seconds() / 3600:.0f} h"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCalls:
    """Calls of this process to one peer since it started."""

    answered: int = 0
    failed: int = 0
    rejected: int = 0
    """Not made, because the peer's circuit was open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposed:
    """What one scrape shows besides the counters of the process."""

    version: str
    role: str
    dry_run: bool
    idle_seconds: Mapping[str, float]
    """How long ago each background task of this process last made progress."""
    peers: Mapping[str, PeerCalls]
    reachable: Mapping[str, bool]
    """By peer; False while its circuit is open."""
    streams: Mapping[str, StreamProgress]
    informer_ages: Mapping[str, Mapping[str, float]]
    """By cluster and kind; the cluster without a name has an empty one."""
    """Seconds since the API server last reported on each kind of object that is watched."""
    budget: int
    """How many actions may begin in the cluster within the window of the budgets."""
    figures: AgentFigures | None
    """None when the database did not answer."""
    now: datetime
    watchdog: WatchdogState | None = None
    """Whether the watchdog alert arrives; None where it is not monitored or the database did not answer."""


def exposition(measures: Measures, exposed: Exposed) -> bytes:
    """Everything in the text format."""
    scrape = CollectorRegistry()
    scrape.register(_Families(tuple(_families(exposed))))
    return generate_latest(measures.registry) + generate_latest(scrape)


@dataclass(frozen=True, slots=True, eq=False)
class _Families(Collector):
    families: tuple[Metric, ...]

    def collect(self) -> Iterable[Metric]:
        return self.families


def _families(exposed: Exposed) -> Iterator[Metric]:
    yield _labelled(
        "heal_build_info",
        "Version and role of this process.",
        ("version", "role"),
        {(exposed.version, exposed.role): 1},
    )
    yield _gauge("heal_dry_run", "1 while this process writes nothing outside.", int(exposed.dry_run))
    yield _labelled(
        "heal_task_idle_seconds",
        "Time since a background task of this process last made progress.",
        ("task",),
        {(task,): seconds for task, seconds in exposed.idle_seconds.items()},
    )
    yield _labelled(
        "heal_informer_age_seconds",
        "Time since the API server last sent something about a watched kind of object.",
        ("cluster", "kind") if any(exposed.informer_ages) else ("kind",),
        {
            ((cluster, kind) if any(exposed.informer_ages) else (kind,)): seconds
            for cluster, ages in exposed.informer_ages.items()
            for kind, seconds in ages.items()
        },
    )
    yield _gauge(
        "heal_budget_limit_actions", "MAX_ACTIONS_PER_CLUSTER, within BUDGET_WINDOW_SECONDS.", exposed.budget
    )
    yield from _peers(exposed)
    yield from _streams(exposed.streams)
    if exposed.watchdog is not None:
        yield _gauge(
            "heal_watchdog_silence_seconds",
            "Time since the watchdog alert was last delivered; 0 until its first delivery.",
            exposed.watchdog.silence.total_seconds(),
        )
        yield _gauge(
            "heal_watchdog_missing",
            "1 while the watchdog alert stays away for too long.",
            int(exposed.watchdog.missing),
        )
    yield _gauge(
        "heal_figures_up", "1 if the database answered this scrape.", int(exposed.figures is not None)
    )
    if exposed.figures is not None:
        yield from _of_database(exposed.figures, exposed.now)


def _peers(exposed: Exposed) -> Iterator[Metric]:
    calls = CounterMetricFamily(
        "heal_connector_calls", "Calls to clusters, metric sources and the like.", labels=("peer", "result")
    )
    for peer, made in exposed.peers.items():
        for result, count in (
            ("answered", made.answered),
            ("failed", made.failed),
            ("rejected", made.rejected),
        ):
            calls.add_metric((peer, result), count)
    yield calls
    yield _labelled(
        "heal_connector_up",
        "0 while a peer is not called because its last call failed.",
        ("peer",),
        {(peer,): int(up) for peer, up in exposed.reachable.items()},
    )


def _streams(streams: Mapping[str, StreamProgress]) -> Iterator[Metric]:
    yield _labelled(
        "heal_stream_lag_messages",
        "Messages not yet read or acknowledged.",
        ("stream",),
        {(name,): one.lag for name, one in streams.items() if one.lag is not None},
    )
    messages = CounterMetricFamily(
        "heal_stream_messages", "Messages by what became of them.", labels=("stream", "result")
    )
    for name, one in streams.items():
        for result in ("accepted", "acknowledged", "rejected", "redelivered"):
            messages.add_metric((name, result), getattr(one, result))
    yield messages


def _of_database(figures: AgentFigures, now: datetime) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "heal_signals_accepted", "Signals accepted by all processes.", value=figures.accepted_signals
    )
    yield _gauge("heal_signals_pending", "Signals without a disposition.", figures.pending_signals)
    yield from _age(
        "heal_oldest_pending_signal_age_seconds",
        "Age of the oldest signal without a disposition.",
        figures.oldest_pending_signal_at,
        now,
    )
    yield _labelled(
        "heal_open_incidents",
        "Open incidents by state.",
        ("state",),
        {(state.value,): count for state, count in figures.open_incidents.items() if not state.closed},
    )
    yield _labelled(
        "heal_ended_incidents",
        f"Incidents that ended within the last {_WINDOW}, by end.",
        ("state",),
        {(state.value,): count for state, count in figures.ended_incidents.items() if state.closed},
    )
    yield _gauge("heal_due_incidents", "Incidents that are due and unclaimed.", figures.due_incidents)
    yield from _age(
        "heal_oldest_due_incident_age_seconds",
        "How long the incident that waits longest for a worker has been due.",
        figures.oldest_due_incident_at,
        now,
    )
    yield _gauge("heal_executing_actions", "Actions under way.", figures.executing_actions)
    yield _labelled(
        "heal_finished_actions",
        f"Actions that began within the last {_WINDOW} and ended, undos not counted, by outcome.",
        ("outcome",),
        {(kind.value,): count for kind, count in figures.finished_actions.items()},
    )
    yield _labelled(
        "heal_decisions",
        f"Decisions on actions within the last {_WINDOW}, undos not counted.",
        ("decision",),
        {(kind.value,): count for kind, count in figures.decisions.items()},
    )
    yield _gauge(
        "heal_budget_used_actions",
        "Actions that began in the cluster within BUDGET_WINDOW_SECONDS.",
        figures.budgeted_actions,
    )
    yield _gauge("heal_pending_approvals", "Actions awaiting an approval.", figures.pending_approvals)
    yield from _age(
        "heal_oldest_pending_approval_age_seconds",
        "How long the oldest unanswered approval has waited.",
        figures.oldest_pending_approval_at,
        now,
    )
    yield _gauge(
        "heal_failing_notifications",
        "Incidents whose last message to a channel failed.",
        figures.failing_postings,
    )
    yield _gauge(
        "heal_kill_switch_engaged", "1 while the kill switch is engaged.", int(figures.kill_switch_engaged)
    )
    yield _gauge("heal_live_workers", "Processes registered in the database.", figures.live_workers)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _age(name: str, help_text: str, since: datetime | None, now: datetime) -> Iterator[Metric]:
    """Zero where nothing waits: without a sample it would look like a failed scrape."""
    yield _gauge(name, help_text, 0.0 if since is None else max(0.0, (now - since).total_seconds()))


def _labelled(
    name: str, help_text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]
) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family
