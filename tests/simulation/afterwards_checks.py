"""The promises after the end of an incident: an undo on request, and the watch over escalated incidents.

Each check belongs to a promise of `tests.simulation.promises`, in whose words it is reported.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

from app.agent.actions.restore import restore_of
from app.agent.models import (
    Action,
    ActionName,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    OutcomeKind,
    Trigger,
    VerdictKind,
)
from app.agent.planner import plan_hash
from tests.reason_oracle import MAX_ERROR_RATE
from tests.simulation.afterwards import Hold
from tests.simulation.scenario import VERIFY_SOAK_SECONDS
from tests.simulation.simulation import Case
from tests.simulation.tape import (
    ChangedByOther,
    Effect,
    IncidentMoved,
    IntentMoved,
    Sent,
    SliAnswered,
    TelemetryAnswered,
    UndoAnswered,
    UndoAsked,
    WorkloadAnswered,
)

_SLACK_SECONDS = 1.0
"""The greatest difference between the clocks of two hosts while nothing disturbs them: 0.5 s either way."""
_DID_NOT_HELP = ("not_recovered", "worse")


def requested_undos(case: Case) -> dict[str, Intent]:
    """The undos that a person asked for, by the id of the intent."""
    return {str(i.id): i for r in case.records for i in r.intents if i.requested_by is not None}


def ended_by_watch(case: Case) -> frozenset[str]:
    """The incidents that the recovery watch ended."""
    return frozenset(m.incident for m in case.tape.of(IncidentMoved) if by_watch(m))


def by_watch(moved: IncidentMoved) -> bool:
    """Whether an escalated incident ended as recovered, which no pass of the loop does."""
    return (moved.before, moved.after) == (IncidentState.ESCALATED, IncidentState.RECOVERED)


def without_claim(moved: IncidentMoved) -> bool:
    """Whether no worker need hold the incident: the watch ends it, or a request opens it again."""
    reopened = moved.before is not None and IncidentState(moved.before).closed and moved.after == "open"
    return reopened or by_watch(moved)


def requested_hashes(record: IncidentRecord) -> set[str]:
    """The plan of each request, worked out from what its entry in the timeline says is undone."""
    found, intents = set(), {str(i.id): i for i in record.intents}
    for entry in record.timeline:
        undoes = entry.data.get("undoes")
        if entry.data.get("act") == "undo" and isinstance(undoes, list):
            restores = (restore_of(intents[str(one)].action) for one in undoes)
            actions: tuple[Action, ...] = tuple(one for one in restores if one is not None)
            found.add(plan_hash(None, actions))
    return found


def requests_end(case: Case) -> Iterator[str]:
    """0: every request to undo is answered, and one that was refused says why."""
    for record in case.records:
        asked = record.incident.undo
        if asked is None:
            continue
        if asked.outcome is None:
            yield f"the undo of {record.incident.id} that {asked.by} requested was never answered"
        elif not asked.message.partition(": ")[2 if asked.outcome is OutcomeKind.REFUSED else 0]:
            yield f"the requested undo of {record.incident.id} was refused without a reason"
    for answer in case.tape.of(UndoAnswered):
        if answer.refused is not None and len(answer.refused) < len("why."):
            yield f"the request to undo {answer.incident} was refused without a reason"


def within_shared_budget(case: Case) -> Iterator[str]:
    """4: a requested undo does not begin while the budget of its service is spent."""
    if case.scenario.afterwards.hold is not Hold.BUDGET:
        return
    for undo in requested_undos(case).values():
        # One action of a service in two hours: the one that it would undo.
        if undo.started_at is not None:
            yield f"the requested undo {undo.id} began although the budget of its service was spent"


def brakes_hold_requests(case: Case) -> Iterator[str]:
    """11: a requested undo does not begin in a freeze window, or while a circuit breaker is open."""
    hold = case.scenario.afterwards.hold
    for record in case.records:
        for undo in record.intents:
            if undo.requested_by is None or undo.started_at is None:
                continue
            if hold is Hold.FREEZE:
                yield f"the requested undo {undo.id} began in a freeze window"
            if hold is Hold.BREAKER and _last_did_not_help(case, record, undo.started_at):
                yield f"the requested undo {undo.id} began while the circuit breaker of its service was open"


def _last_did_not_help(case: Case, record: IncidentRecord, at: datetime) -> bool:
    """Whether the last action on the service before that time, one of this incident, did not help."""
    begun = [
        (intent.started_at, other.incident.id)
        for other in case.records
        if other.incident.key == record.incident.key
        for intent in other.intents
        if intent.undoes is None and intent.started_at is not None and intent.started_at < at
    ]
    if not begun or max(begun)[1] != record.incident.id:
        return False
    verdicts = [str(e.data["verdict"]) for e in record.timeline if "verdict" in e.data and e.at < at]
    return bool(verdicts) and verdicts[-1] in _DID_NOT_HELP


def undone_on_request(case: Case) -> Iterator[str]:
    """10: an undo on request has a request, one effect, a target without other changes, and is verified."""
    asked: dict[str, set[str]] = defaultdict(set)
    ended: set[str] = set()
    requested = requested_undos(case)
    for entry in case.tape.entries:
        if isinstance(entry, UndoAsked):
            asked[entry.incident].add(entry.by)
        elif isinstance(entry, IncidentMoved) and IncidentState(entry.after).closed:
            ended.add(entry.incident)
        elif isinstance(entry, IntentMoved) and entry.before is None and entry.undoes is not None:
            intent = requested.get(entry.intent)
            if intent is not None and intent.requested_by not in asked[entry.incident]:
                yield f"{entry.incident}: {intent.requested_by} never requested the undo {entry.intent}"
            elif entry.incident in ended and not asked[entry.incident]:
                yield f"{entry.incident} had ended, and an undo was decided without a request"
    yield from _undone_once(case, requested)
    for record in case.records:
        yield from _verified(case, record)


def _undone_once(case: Case, requested: dict[str, Intent]) -> Iterator[str]:
    effects: dict[str, list[Effect]] = defaultdict(list)
    done = {e.intent: e for e in case.tape.of(Effect)}
    undoes = {m.intent: m.undoes for m in case.tape.of(IntentMoved) if m.undoes is not None}
    for effect in done.values():
        changed = undoes.get(effect.intent)
        if changed is not None:
            effects[changed].append(effect)
    for changed, found in effects.items():
        if len(found) > 1:
            yield f"{changed} was undone {len(found)} times"
    for identifier, undo in requested.items():
        restored, before = done.get(identifier), done.get(undo.undoes or "")
        target = undo.action.target
        if restored is None or before is None or target is None or target.kind == "ConfigMap":
            continue
        if undo.action.parameters.get("undoes") == ActionName.SCALE:
            continue
        touched = (c.at for c in case.tape.of(ChangedByOther) if c.service == restored.service)
        if any(before.at < at < restored.at for at in touched):
            yield f"the requested undo {identifier} overwrote what somebody had changed since"


def _verified(case: Case, record: IncidentRecord) -> Iterator[str]:
    """An undo is called verified only after a look at the cluster that shows it complete."""
    ends = [
        moved.at
        for moved in case.tape.of(IncidentMoved)
        if moved.incident == record.incident.id and IncidentState(moved.after).closed
    ]
    effects = {e.intent: e for e in case.tape.of(Effect)}
    service = record.incident.key.service
    looks = [w for w in case.tape.of(WorkloadAnswered) if w.service == service]
    for undo in record.intents:
        effect = effects.get(undo.id)
        if undo.requested_by is None or effect is None:
            continue
        notes = [e for e in record.timeline if e.data.get("intent") == undo.id and "undoes" in e.data]
        for note in notes:
            if not note.message.startswith("Undo verified"):
                continue
            end = next((at for at in ends if at > effect.at), effect.at)
            looked = [w for w in looks if effect.at < w.at <= end]
            steady = looked and looked[-1].at - looked[0].at >= VERIFY_SOAK_SECONDS - _SLACK_SECONDS
            if not any(look.whole for look in looked) and not steady:
                yield f"the requested undo {undo.id} was called verified before it was complete"


def recovers_after_a_soak(case: Case) -> Iterator[str]:
    """8: the watch ends an incident only after a whole soak of healthy measurements."""
    telemetry = [a for a in case.tape.of(TelemetryAnswered) if a.outage]
    records = {str(r.incident.id): r for r in case.records}
    for moved in case.tape.of(IncidentMoved):
        record = records.get(moved.incident)
        if not by_watch(moved) or record is None:
            continue
        since, until = record.incident.recovered_at, _ended_at(record)
        if since is None or until is None:
            yield f"{moved.incident} recovered after its escalation, and nothing says when"
            continue
        if until - since < timedelta(seconds=VERIFY_SOAK_SECONDS):
            yield f"{moved.incident} recovered after its escalation within {until - since}"
        if any(since <= answer.asked_at <= until for answer in telemetry):
            yield f"{moved.incident} recovered after its escalation in a telemetry outage"
        yield from _healthy_throughout(case, record, moved.who, since, until)


def _ended_at(record: IncidentRecord) -> datetime | None:
    told = [entry.at for entry in record.timeline if "recovered_at" in entry.data]
    return told[-1] if told else None


def _healthy_throughout(
    case: Case, record: IncidentRecord, who: str, since: datetime, until: datetime
) -> Iterator[str]:
    """At both ends and between them, as the host that watched was answered."""
    incident = record.incident
    if Trigger.HIGH_ERROR_RATE not in incident.triggers:
        return
    answers = [
        answer
        for answer in case.tape.of(SliAnswered)
        if answer.who == who and answer.key == incident.key and since <= answer.asked_at <= until
    ]
    asked_at = {answer.asked_at for answer in answers}
    if not {since, until} <= asked_at:
        yield f"{incident.id} recovered after its escalation without a measurement at both ends of its soak"
    for answer in answers:
        rate = answer.sample.error_rate if answer.sample is not None else None
        if rate is None:
            yield f"{incident.id} recovered after its escalation while its telemetry was silent"
        elif rate > MAX_ERROR_RATE:
            yield f"{incident.id} recovered after its escalation at an error rate of {rate}"


def watch_does_nothing(case: Case) -> Iterator[str]:
    """10: nothing is sent for an incident that has ended, and its recovery credits no action."""
    incident_of = {m.intent: m.incident for m in case.tape.of(IntentMoved)}
    closed: set[str] = set()
    for entry in case.tape.entries:
        if isinstance(entry, IncidentMoved):
            (closed.add if IncidentState(entry.after).closed else closed.discard)(entry.incident)
        elif isinstance(entry, Sent) and _after_the_end(case, entry) and incident_of[entry.intent] in closed:
            yield f"{entry.action} was sent for {incident_of[entry.intent]}, which had ended"
        elif (
            isinstance(entry, IntentMoved)
            and entry.after == IntentState.EXECUTING
            and entry.incident in closed
        ):
            yield f"intent {entry.intent} began for {entry.incident}, which had ended"
    watched = ended_by_watch(case)
    for record in case.records:
        incident, verdict, lesson = record.incident, record.incident.verdict, record.incident.lesson
        if incident.id not in watched or incident.state is not IncidentState.RECOVERED:
            continue
        if "The agent did nothing after the handover." not in incident.summary:
            yield f"{incident.id} recovered after its escalation, and its summary credits something"
        credited = verdict is not None and verdict.kind is VerdictKind.RECOVERED
        if credited or (lesson is not None and lesson.worked):
            yield f"{incident.id} recovered after its escalation, and credits an action"


def _after_the_end(case: Case, entry: Sent) -> bool:
    return case.afterwards_from is not None and entry.at >= case.afterwards_from
