"""Builds of the product that break one promise each, on purpose.

Each replaces a small piece of the product while a simulation runs. The promise's
own check must catch it within 200 seeds: what no broken build can fail is no
check. `tests/simulation/test_mutants.py` holds every one to that.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select

from app.agent import (
    executor,
    policy,
)
from app.agent import (
    soak as trial,
)
from app.agent.actions.target_parts import as_left
from app.agent.closing import Closer
from app.agent.evidence import symptoms
from app.agent.evidence.onset import departure, patience
from app.agent.execution import recheck
from app.agent.freshness import all_clear, memory, own_look, reasons, reports, silences
from app.agent.guardrails import limits
from app.agent.ids import IncidentId, ServiceKey
from app.agent.intake import Intake, IntakeRules
from app.agent.intents import NOT_READ, Since, begun_intents, to_undo, unverified
from app.agent.models import (
    Disposition,
    DispositionKind,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    Note,
    Observation,
    Signal,
    SliSample,
    Snapshot,
    TelemetryHealth,
    TimelineEntry,
)
from app.agent.observer import Observer
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.signals import Accepted
from app.agent.reason_check import ReasonCheck
from app.agent.slo import SloThresholds
from app.agent.stages.deciding import Deciding
from app.agent.timeline import chain_start, extend_chain
from app.agent.verification import assessment
from app.errors import ClaimLost, PermanentError, TransientError
from app.store import (
    claims,
    guardrails,
    intents,
)
from app.store import (
    notes as narrative,
)
from app.store.claims import SqlClaims
from app.store.database import rows
from app.store.database.repository import writes
from app.store.database.tables import claims as claim_rows
from app.store.database.tables import incidents as incident_rows
from app.workers.sweeper import Sweeper
from tests.simulation.afterwards_mutants import AFTERWARDS_MUTANTS
from tests.simulation.mutant import Mutant, always

# ---------------------------------------------------------------- promises 0 to 3


@writes
def _never_taken_over(
    self: SqlClaims, connection: Connection, owner: str, lease: timedelta, now: datetime, limit: int
) -> tuple[Claim, ...]:
    free = select(incident_rows.c.id).where(
        incident_rows.c.closed_at.is_(None),
        incident_rows.c.due_at <= now,
        incident_rows.c.id.not_in(select(claim_rows.c.incident_id).where(claim_rows.c.owner.is_not(None))),
    )
    due = connection.execute(free.order_by(incident_rows.c.due_at).limit(limit)).scalars().all()
    taken = [claims.taken(connection, IncidentId(found), owner, lease, now) for found in due]
    return tuple(claim for claim in taken if claim is not None)


async def _begun_without_record(*_: object) -> bool:
    return True


async def _written_again(
    self: executor.Executor, record: IncidentRecord, intent: Intent, claim: Claim
) -> None:
    assert self.reader is not None
    await self.direct.send(record, intent, await self.reader.target(intent.action), claim, None)


def _held_by_anyone(connection: Connection, claim: Claim) -> Incident:
    row = connection.execute(
        select(incident_rows).where(incident_rows.c.id == claim.incident_id)
    ).one_or_none()
    if row is None or row.closed_at is not None:
        raise ClaimLost("it is gone")
    return rows.incident_of(row)


@writes
def _taken_from_holders(
    self: SqlClaims, connection: Connection, owner: str, lease: timedelta, now: datetime, limit: int
) -> tuple[Claim, ...]:
    due = connection.execute(
        select(incident_rows.c.id)
        .where(incident_rows.c.closed_at.is_(None), incident_rows.c.due_at <= now)
        .limit(limit)
    ).scalars()
    never = datetime.max.replace(tzinfo=now.tzinfo, year=9000)
    taken = [claims.taken(connection, IncidentId(found), owner, lease, never) for found in due.all()]
    return tuple(claim for claim in taken if claim is not None)


# ---------------------------------------------------------------- promises 5 to 9

_incident_of = rows.incident_of


def _never_dry(row: Row[Any]) -> Incident:
    return replace(_incident_of(row), dry_run=False)


_accept = Intake.accept


async def _acknowledged_anyway(
    self: Intake, signals: Sequence[Signal], **options: Any
) -> tuple[Accepted, ...]:
    try:
        return await _accept(self, signals, **options)
    except TransientError:
        kept = Disposition(kind=DispositionKind.IGNORED, reason="busy")
        return tuple(Accepted(signal_id=signal.id, disposition=kept) for signal in signals)


async def _nothing_swept(*_: object) -> None:
    """Pending signals stay pending."""


# ---------------------------------------------------------------- promises 10 to 13

_moved_on = trial.moved_on
_unverified = unverified


def _from_the_beginning(incident: Incident) -> Incident:
    return replace(_moved_on(incident), next_action=0)


def _verdict_of_any_step(record: IncidentRecord) -> Intent | None:
    return _unverified(record) if record.incident.verdict is None else None


def _chain_of_one(previous: str, sequence: int, notes: Sequence[Note]) -> tuple[TimelineEntry, ...]:
    del previous
    return extend_chain(chain_start(IncidentId("any")), sequence, notes)


_begin_note = narrative.begin_note


def _told_with_contents(intent: Intent, snapshot: Snapshot | None, at: datetime) -> Note:
    note = _begin_note(intent, snapshot, at)
    return replace(note, data={**note.data, "before": None if snapshot is None else snapshot.body})


def _never_old(self: reasons.Reason, now: datetime, max_age: timedelta) -> bool:
    del now, max_age
    return self.withdrawn is None


def _never_withdrawn(self: reasons.Reason, now: datetime, max_age: timedelta) -> bool:
    by_sender = self.withdrawn is None or self.withdrawn.by != "the agent"
    return by_sender and abs(now - self.last_true_at) <= max_age


_objection = own_look._metric_objection


def _measured_in_vain(reason: reasons.Reason, seen: Observation, slo: SloThresholds) -> str | None:
    sample = None if seen.sli is None else replace(seen.sli, error_rate=None, p95_latency_ms=None)
    return _objection(reason, replace(seen, sli=sample), slo)


def _refusal_is_fine(reason: reasons.Reason, seen: Observation, slo: SloThresholds) -> str | None:
    return _objection(reason, replace(seen, unmeasured=None, telemetry=None), slo)


async def _target_not_read(_self: Closer, _record: IncidentRecord) -> Since:
    return NOT_READ


_stored = memory.stored


def _withdrawn_dropped(
    known: tuple[reasons.Reason, ...], reason: reasons.Reason
) -> tuple[reasons.Reason, ...]:
    """As in a record that many alerts fill."""
    after = _stored(known, reason)
    return tuple(one for one in after if one.withdrawn is None or one.withdrawn.muted)


async def _read_from_signals(
    self: ReasonCheck, incident: Incident
) -> tuple[tuple[reasons.Reason, ...], tuple[reasons.Reason, ...]]:
    levels = await self.observer.store.signals.levels(incident.key)
    recorded = () if levels is None else levels.reasons
    known = {one.trigger for one in recorded}
    signals = await self.observer.store.signals.of_incident(incident.id, 200)
    claims = [one for one in signals if getattr(one.payload, "firing", True)]
    missing = reports.from_signals(claims, self.slo)
    return recorded, tuple(one for one in missing if one.trigger not in known)


def _none_recorded(
    self: ReasonCheck, found: tuple[reasons.Reason, ...], _recorded: object
) -> reasons.Reasons:
    return reasons.Reasons(
        found=found,
        max_age=self.max_age,
        clock=self.clock.now,
        unrecorded=frozenset(one.subject for one in found),
    )


_quieted = IntakeRules._quieted


def _quieted_anyway(self: IntakeRules, signal: Signal, judged: Any, last: Incident | None) -> str | None:
    if last is not None:
        ended = None if last.closed_at is None else signal.received_at
        last = replace(last, state=IncidentState.ESCALATED, verdict=None, closed_at=ended)
    return _quieted(self, signal, judged, last)


def _nothing(*_: object) -> list[str]:
    return []


# ---------------------------------------------------------------- what an incident may rest on


async def _posted_instead(
    self: Observer, key: ServiceKey, now: datetime, unmeasured: list[str]
) -> tuple[SliSample, ...]:
    assert self.metrics is not None
    posted = await self.store.signals.samples(key, now - self.lookback)
    try:
        return await self.metrics.sli_range(key, now - self.lookback, now, timedelta(seconds=15)) or posted
    except PermanentError:
        return posted


EVIDENCE_MUTANTS = (
    Mutant(
        name="posted-outranks-measured",
        promise=8,
        told="what the agent measures itself says nothing against what was posted",
        swaps=[
            (symptoms.doubt, always(None)),
            (symptoms._inside_now, always(False)),
            (patience.patience, always(None)),  # it waits for what is not measured
        ],
    ),
    Mutant(
        name="onset-is-now",
        promise=8,
        told="whatever changed before the agent looks is taken to come before the symptom",
        # Nothing else dates the symptom, and nothing is waited for meanwhile.
        swaps=[
            (symptoms.incident_onset, lambda evidence: evidence.at),
            (departure.departure, always(None)),
            (departure.departure_of, always(None)),
            (patience.patience, always(None)),
        ],
    ),
    Mutant(
        name="any-traffic-tells",
        promise=8,
        told="one request in twenty seconds is enough to judge a service by",
        patches=[(SloThresholds, "too_few", always(False))],
    ),
    Mutant(
        name="posted-stands-in",
        promise=8,
        told="where the metric source refuses, what was posted stands in for a measurement",
        patches=[(Observer, "_sli_history", _posted_instead)],
    ),
)


MUTANTS = {
    mutant.name: mutant
    for mutant in (
        Mutant(
            name="no-take-over",
            promise=0,
            told="an incident whose holder died is never handed out again",
            swaps=[(claims.release_owner, always(0))],
            patches=[(SqlClaims, "take_due", _never_taken_over)],
        ),
        Mutant(
            name="unbound-decisions",
            promise=1,
            told="a decision holds whatever became of the target since",
            swaps=[(recheck.target_changed, always(None))],
        ),
        Mutant(
            name="effect-first",
            promise=2,
            told="the effect comes without its intent being begun",
            patches=[(executor.Executor, "_begun", _begun_without_record)],
        ),
        Mutant(
            name="blind-repeat",
            promise=2,
            told="after an interruption the write is sent again without a look at the marker",
            patches=[(executor.Executor, "reconcile", _written_again)],
        ),
        Mutant(
            name="no-fencing",
            promise=3,
            told="held incidents are handed out, and writers need not hold them",
            swaps=[(claims.hold, _held_by_anyone)],
            patches=[(SqlClaims, "take_due", _taken_from_holders)],
        ),
        Mutant(
            name="no-budget",
            promise=4,
            told="the actions of an incident are not counted",
            swaps=[(intents._begun, always(0)), (begun_intents, always(()))],
        ),
        Mutant(
            name="no-shared-budget",
            promise=4,
            calm=True,
            told="the limits that all incidents share are never asked",
            swaps=[(limits.exceeded, always(()))],
        ),
        Mutant(
            name="forgotten-dry-run",
            promise=5,
            told="an incident forgets that it was opened in a dry run",
            swaps=[(rows.incident_of, _never_dry)],
        ),
        Mutant(
            name="risk-ignored",
            promise=6,
            told="high risk is as good as low",
            swaps=[(policy.forbidden_now, _nothing)],
        ),
        Mutant(
            name="policy-open",
            promise=7,
            told="what the policy engine says, or fails to say, does not count",
            swaps=[(policy._stricter, lambda one, _other: one)],
        ),
        Mutant(
            name="silence-is-health",
            promise=8,
            told="a service of which nothing is measured is well",
            swaps=[(assessment._unmeasured, always(()))],
        ),
        Mutant(
            name="outage-unseen",
            promise=8,
            told="the measuring is always taken to work",
            patches=[(TelemetryHealth, "outage", property(always(False)))],
        ),
        *EVIDENCE_MUTANTS,
        Mutant(
            name="early-acknowledgement",
            promise=9,
            told="a signal is acknowledged although it could not be stored",
            patches=[(Intake, "accept", _acknowledged_anyway)],
        ),
        Mutant(
            name="quieted-after-recovery",
            promise=9,
            calm=True,
            told="an incident that ended with a recovery quiets every later outage",
            patches=[(IntakeRules, "_quieted", _quieted_anyway)],
        ),
        Mutant(
            name="no-sweep",
            promise=9,
            told="pending signals are never ended",
            patches=[(Sweeper, "sweep", _nothing_swept)],
        ),
        Mutant(
            name="no-undo",
            promise=10,
            told="what did not help is left standing",
            swaps=[(to_undo, always(None))],
        ),
        Mutant(
            name="verdict-of-another-step",
            promise=10,
            calm=True,
            told="a verdict on an earlier action stands for every later one",
            swaps=[(unverified, _verdict_of_any_step)],
        ),
        Mutant(
            name="undo-by-generation",
            promise=10,
            calm=True,
            told="any change of the object by others holds an undo off",
            swaps=[(as_left, lambda _action, applied, now: applied == now)],
        ),
        Mutant(
            name="unread-at-the-end",
            promise=10,
            calm=True,
            told="an incident ends without a look at what it changed",
            patches=[(Closer, "_since", _target_not_read)],
        ),
        Mutant(
            name="same-again",
            promise=10,
            told="a plan is carried out once more from its beginning after it failed",
            swaps=[(trial.moved_on, _from_the_beginning)],
            # A diagnosis of some age is made again, which would hide it.
            patches=[(Deciding, "aged", always(False))],
        ),
        Mutant(
            name="no-brake",
            promise=11,
            told="the kill switch is asked when deciding, and not when beginning",
            swaps=[(guardrails.holds, always(False))],
        ),
        Mutant(
            name="broken-chain",
            promise=12,
            told="entries of a timeline do not follow from those before",
            swaps=[(extend_chain, _chain_of_one)],
        ),
        Mutant(
            name="secrets-told",
            promise=12,
            told="the timeline shows what a ConfigMap held",
            swaps=[(narrative.begin_note, _told_with_contents)],
        ),
        Mutant(
            name="reasons-never-age",
            promise=13,
            told="what was true once is a reason for ever",
            patches=[(reasons.Reason, "stands", _never_old)],
        ),
        Mutant(
            name="withdrawals-ignored",
            promise=13,
            told="an alert that resolved, and a sample within the objective, take nothing back",
            patches=[(reasons.Reason, "stands", _never_withdrawn)],
        ),
        Mutant(
            name="withdrawn-read-again",
            promise=13,
            told="what was withdrawn and then left out of the record counts as of an older version",
            swaps=[(memory.stored, _withdrawn_dropped)],
            patches=[
                (ReasonCheck, "_reported", _read_from_signals),
                (ReasonCheck, "_reasons", _none_recorded),
            ],
        ),
        Mutant(
            name="silences-ignored",
            promise=13,
            told="what people silenced in the monitoring is acted on",
            swaps=[(silences.silenced, lambda found, _silencings, _at: (found, ()))],
        ),
        Mutant(
            name="own-measurement-ignored",
            promise=13,
            calm=True,
            told="what the agent measures itself contradicts no report",
            swaps=[(own_look._metric_objection, _measured_in_vain)],
        ),
        Mutant(
            name="refusal-is-a-reason",
            promise=13,
            calm=True,
            told="a metric source that refuses to answer leaves every report standing",
            swaps=[(own_look._metric_objection, _refusal_is_fine)],
        ),
        Mutant(
            name="unasked-at-the-beginning",
            promise=13,
            told="the transaction that begins an action does not ask what was withdrawn meanwhile",
            swaps=[(intents._refusal, always(None))],
        ),
        Mutant(
            name="all-clear-while-it-fires",
            promise=13,
            told="an incident recovers while the alert that opened it fires",
            swaps=[(all_clear.firing_alerts, always(()))],
        ),
        *AFTERWARDS_MUTANTS,
    )
}


@contextlib.contextmanager
def mutated(name: str | None) -> Iterator[None]:
    """Run the broken build of that name meanwhile; None is the product as it is."""
    places = [] if name is None else [*_places(MUTANTS[name])]
    before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in places]
    try:
        for owner, attribute, broken in places:
            setattr(owner, attribute, broken)
        yield
    finally:
        for owner, attribute, sound in before:
            setattr(owner, attribute, sound)


def _places(mutant: Mutant) -> Iterator[tuple[Any, str, Any]]:
    """Every module of the product that has a swapped function by name, and the classes to be patched."""
    for sound, broken in mutant.swaps:
        for module in [module for name, module in sys.modules.items() if name.startswith("app.")]:
            yield from ((module, name, broken) for name, held in vars(module).items() if held is sound)
    yield from mutant.patches
