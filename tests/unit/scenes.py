"""Evidence for tests of diagnosis and planning: a service that served well, and what then went wrong.

Times are minutes relative to `OPENED`, when the incident was opened: -3 is three
minutes before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.agent.actions import PlanLimits
from app.agent.ids import ServiceKey, SignalId
from app.agent.models import (
    Change,
    ChangeKind,
    Condition,
    Evidence,
    Payload,
    Signal,
    SignalKind,
    SliSample,
    Trigger,
)
from app.agent.runbooks import load_catalogue
from app.agent.workload import (
    ConfigMapView,
    ConfigRecord,
    ObjectRef,
    PodView,
    Revision,
    RevisionHealth,
    RevisionRecord,
    TargetState,
    WorkloadView,
)

OPENED = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
KEY = ServiceKey(environment="prod", service="checkout")
DATABASE = ServiceKey(environment="prod", service="ledger")
CALLER = ServiceKey(environment="prod", service="storefront")
REF = ObjectRef(kind="Deployment", namespace="prod", name="checkout")

DAY = 24 * 60.0
CATALOGUE = load_catalogue(Path(__file__).parents[2] / "runbooks")
LIMITS = PlanLimits(scale_min=1, scale_max=10)


def at(minutes: float) -> datetime:
    return OPENED + timedelta(minutes=minutes)


def revision(number: int, created: float, **changes: object) -> Revision:
    """A revision with its own code and the common configuration."""
    plain = Revision(
        number=number,
        template_hash=f"template-{number}",
        code_hash=f"code-{number}",
        config_hash="config",
        images=(f"registry.example/checkout:1.{number}.0",),
        created_at=at(created),
        replicas=0,
        ready_replicas=0,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # a test names real fields


def pods(
    of: Revision, count: int = 3, *, created: float | None = None, **changes: object
) -> tuple[PodView, ...]:
    """Ready pods of a revision, one on each of as many nodes."""
    born = of.created_at if created is None else at(created)
    plain = tuple(
        PodView(
            name=f"checkout-{of.number}-{index}",
            node=f"node-{index}",
            phase="Running",
            ready=True,
            restarts=0,
            waiting_reason=None,
            last_termination_reason=None,
            template_hash=of.template_hash,
            created_at=born,
        )
        for index in range(count)
    )
    return tuple(replace(p, **changes) for p in plain)  # type: ignore[arg-type]  # a test names real fields


def crashing(
    of: Revision, count: int = 3, *, reason: str = "Error", restarts: int = 4
) -> tuple[PodView, ...]:
    """Pods in CrashLoopBackOff."""
    return pods(
        of,
        count,
        ready=False,
        restarts=restarts,
        waiting_reason="CrashLoopBackOff",
        last_termination_reason=reason,
    )


def pulling(of: Revision, count: int = 1) -> tuple[PodView, ...]:
    """Pods whose image does not exist."""
    return pods(of, count, ready=False, phase="Pending", waiting_reason="ImagePullBackOff")


def workload(revisions: Sequence[Revision], running: Sequence[PodView], **changes: object) -> WorkloadView:
    """A Deployment of three replicas whose newest revision is the current one."""
    ready = sum(p.ready for p in running)
    counted = tuple(
        replace(r, ready_replicas=sum(p.ready for p in running if p.template_hash == r.template_hash))
        for r in revisions
    )
    current = [p for p in running if p.template_hash == revisions[0].template_hash]
    plain = WorkloadView(
        target=TargetState(ref=REF, uid="uid-1", resource_version="100", token="uid-1/7"),
        observed_at=at(0.3),
        desired_replicas=3,
        updated_replicas=len(current),
        ready_replicas=ready,
        available_replicas=ready,
        paused=False,
        rollout_complete=len(current) == len(running) == ready,
        progress_deadline_exceeded=False,
        current_revision=revisions[0].number,
        revisions=counted,
        pods=tuple(running),
        config_maps=(),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # a test names real fields


def record(
    of: Revision, health: RevisionHealth = RevisionHealth.SERVED_WELL, seen: float = -DAY
) -> RevisionRecord:
    """What the agent remembers of a revision."""
    return RevisionRecord(
        key=KEY,
        template_hash=of.template_hash,
        number=of.number,
        health=health,
        seen_at=at(seen),
        reason="test",
    )


def config_map(content: str, changed: float | None) -> ConfigMapView:
    return ConfigMapView(
        name="checkout-settings",
        content_hash=content,
        resource_version="7",
        keys=("LEDGER_URL",),
        changed_at=None if changed is None else at(changed),
    )


def config_record(
    content: str, health: RevisionHealth = RevisionHealth.SERVED_WELL, seen: float = -DAY
) -> ConfigRecord:
    return ConfigRecord(
        key=KEY,
        name="checkout-settings",
        content_hash=content,
        data={"LEDGER_URL": "http://ledger:8080"},
        health=health,
        seen_at=at(seen),
    )


def change(kind: ChangeKind, minutes: float, *, key: ServiceKey = KEY, **changes: object) -> Change:
    plain = Change(kind=kind, key=key, at=at(minutes), summary=f"{kind} of {key.service}")
    return replace(plain, **changes)  # type: ignore[arg-type]  # a test names real fields


_KINDS = {
    "Deploy": SignalKind.DEPLOY,
    "MetricSample": SignalKind.METRIC,
    "Alert": SignalKind.ALERT,
    "ClusterCondition": SignalKind.CONDITION,
    "ConfigChange": SignalKind.CHANGE,
}


def signal(payload: Payload, minutes: float, *, stale: bool = False) -> Signal:
    name = type(payload).__name__
    return Signal(
        id=SignalId(f"sig_{name}_{minutes}"),
        kind=_KINDS[name],
        key=KEY,
        source="http",
        observed_at=at(minutes),
        received_at=OPENED,
        dedup_key=f"{name}:{minutes}",
        stale=stale,
        payload=payload,
    )


Curve = Callable[[float], float | None]


def flat(value: float | None) -> Curve:
    return lambda _: value


def step(start: float, low: float, high: float) -> Curve:
    """`low` until `start` (minutes), `high` from then on."""
    return lambda minute: high if minute >= start else low


_FEW_ERRORS, _FAST, _STEADY = flat(0.001), flat(200.0), flat(50.0)


def curves(
    *, errors: Curve = _FEW_ERRORS, p95: Curve = _FAST, requests: Curve = _STEADY, since: float = -20
) -> tuple[SliSample, ...]:
    """A sample every 15 seconds from `since` to now."""
    minutes = [since + quarter / 4 for quarter in range(int(-since * 4) + 1)]
    return tuple(
        SliSample(at=at(m), error_rate=errors(m), p95_latency_ms=p95(m), request_rate=requests(m))
        for m in minutes
    )


OLD = revision(6, -3 * DAY)
"""What ran for three days and served well."""


def evidence(*triggers: Trigger, **changes: object) -> Evidence:
    """A healthy service with telemetry, its history known, on which only `triggers` fired."""
    plain = Evidence(
        key=KEY,
        at=at(0.3),
        opened_at=OPENED,
        triggers=triggers,
        conditions=(),
        signals=(),
        changes=(),
        workload=workload([OLD], pods(OLD)),
        revision_history=(record(OLD),),
        config_history=(),
        sli=curves(),
        telemetry=None,
        other_open_incidents=(),
        dependencies=(DATABASE,),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # a test names real fields


def released(running: Sequence[PodView] = (), *, created: float = -3, **changes: object) -> WorkloadView:
    """A release (revision 7) beside or instead of the old revision; by default its pods are healthy."""
    new = revision(7, created)
    return workload([new, OLD], running or pods(new), **changes)


NEW = revision(7, -3)
"""A release three minutes before the incident was opened."""

CRASH = (Condition.CRASH_LOOP_BACK_OFF,)
