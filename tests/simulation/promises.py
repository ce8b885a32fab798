"""The thirteen promises of the product, each a named check over what a simulated seed left behind.

A check reads the tape (written by triggers and by the world), the records as the
store holds them, and the clients' ledger. It yields what is wrong, in words; a
seed without any words kept every promise. The numbers are the product's own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from app.agent.actions import ACTIONS
from app.agent.ids import IntentId, SignalId
from app.agent.models import (
    ActionName,
    DecisionKind,
    Disposition,
    DispositionKind,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    OutcomeKind,
    Risk,
    Trigger,
    VerdictKind,
)
from app.agent.planner import plan_hash
from app.agent.timeline import chain_start, first_broken
from tests.limit_oracle import Row, Set, beyond
from tests.simulation.afterwards_checks import (
    brakes_hold_requests,
    ended_by_watch,
    recovers_after_a_soak,
    requested_hashes,
    requested_undos,
    requests_end,
    undone_on_request,
    watch_does_nothing,
    within_shared_budget,
    without_claim,
)
from tests.simulation.hostile import (
    failing_to_measure_is_no_reason,
    later_changes_are_no_cause,
    no_verdict_on_a_handful,
    own_measurement_outranks,
)
from tests.simulation.reasons import stands_on_a_reason
from tests.simulation.scenario import MAX_SAMPLE_AGE_SECONDS
from tests.simulation.simulation import Case
from tests.simulation.tape import (
    BrakeSet,
    ChangedByOther,
    Effect,
    IncidentMoved,
    IntentMoved,
    PolicyAnswered,
    Sent,
    SliAnswered,
    Tampered,
    TelemetryAnswered,
    Told,
)
from tests.simulation.world import SECRET

Check: TypeAlias = Callable[[Case], Iterator[str]]

_NO_EFFECT = frozenset({OutcomeKind.FAILED, OutcomeKind.REFUSED, OutcomeKind.REHEARSED})
_RECOVERIES = frozenset({IncidentState.RECOVERED, IncidentState.RECOVERED_WITHOUT_ACTION})
_TOLERANCE = timedelta(seconds=2)
_LOOK_SECONDS, _SLOW_LOOK_SECONDS = 3.0, 60.0
"""The end of an incident is stored so long after its look at the target at most; the second where answers
are slow or hosts pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that a seed broke."""

    seed: int
    promise: int
    told: str

    def __str__(self) -> str:
        return f"seed {self.seed} breaks promise {self.promise} ({NAMES[self.promise]}): {self.told}"


def allowed_first(case: Case) -> Iterator[str]:
    """1: no effect without an allow recorded before, for that plan's hash and that state of the target."""
    decided = {m.intent: n for n, m in _numbered(case, IntentMoved) if m.before is None}
    records = {i.id: (r, i) for r in case.records for i in r.intents}
    for number, effect in _numbered(case, Effect):
        if effect.intent not in records or decided.get(effect.intent, number) >= number:
            yield f"{effect.action} on {effect.service} without a decision on record"
            continue
        record, intent = records[effect.intent]
        if intent.decision.kind is not DecisionKind.ALLOW:
            yield f"{effect.action} on {effect.service} took place although decided {intent.decision.kind}"
        if _ground(intent.decision.target_token, intent) != _ground(effect.token_before, intent):
            yield (
                f"{effect.action} on {effect.service} was decided on {intent.decision.target_token} "
                f"and changed {effect.token_before}"
            )
        if intent.decision.plan_hash not in _hashes(record, intent):
            yield f"{effect.action} on {effect.service} was decided for a plan without a record"
        if intent.approval is not None:
            yield from _bound_to_approval(record, intent)


def _ground(token: str | None, intent: Intent) -> str:
    """What a decision rests on, in the check's own words: all but replicas that the action leaves alone."""
    scales = ActionName.SCALE in (intent.action.name, intent.action.parameters.get("undoes"))
    moving = ("generation=",) if scales else ("generation=", "replicas=")
    head, _, asked = (token or "").rpartition("/")
    return f"{head}/{','.join(part for part in asked.split(',') if not part.startswith(moving))}"


def _hashes(record: IncidentRecord, intent: Intent) -> set[str]:
    """The hashes that the timeline recorded for plans, and the present one computed again."""
    told = {str(e.data["hash"]) for e in record.timeline if "rejected" in e.data and "hash" in e.data}
    plan = record.incident.plan
    if plan is not None and intent.action in plan.actions:
        told &= {plan_hash(plan.runbook_hash, plan.actions), *told}
    return told if intent.requested_by is None else requested_hashes(record)


def _bound_to_approval(record: IncidentRecord, intent: Intent) -> Iterator[str]:
    given = {a.id: a for a in record.approvals}
    assert intent.approval is not None
    approval = given.get(intent.approval)
    if approval is None or approval.answered_by is None:
        yield f"intent {intent.id} used an approval without an answer"
    elif (approval.plan_hash, _ground(approval.target_token, intent)) != (
        intent.decision.plan_hash,
        _ground(intent.decision.target_token, intent),
    ):
        yield f"intent {intent.id} used an approval that was given for something else"


def at_most_once(case: Case) -> Iterator[str]:
    """2: an intent is durable before its effect, has at most one, and its outcome is honest."""
    begun: dict[str, int] = {}
    for number, moved in _numbered(case, IntentMoved):
        if moved.after == IntentState.EXECUTING:
            begun.setdefault(moved.intent, number)
    for number, sent in _numbered(case, Sent):
        if begun.get(sent.intent, number) >= number:
            yield f"{sent.action} was sent before its intent was durable ({sent.intent})"
    effects: dict[str, list[Effect]] = defaultdict(list)
    for effect in case.tape.of(Effect):
        effects[effect.intent].append(effect)
    for record in case.records:
        for intent in record.intents:
            yield from _honest(intent, effects[intent.id])


def _honest(intent: Intent, effects: list[Effect]) -> Iterator[str]:
    if len(effects) > 1:
        yield f"intent {intent.id} ({intent.action.name}) had {len(effects)} effects"
    outcome = intent.outcome.kind if intent.outcome is not None else None
    if effects and outcome in _NO_EFFECT:
        yield f"intent {intent.id} ({intent.action.name}) is recorded as {outcome}, and had an effect"
    if not effects and outcome is OutcomeKind.DONE and intent.action.name is not ActionName.NOTIFY:
        yield f"intent {intent.id} ({intent.action.name}) is recorded as done, and had no effect"


def one_at_a_time(case: Case) -> Iterator[str]:
    """3: one open incident and one begun intent per service, moved only by who holds the claim."""
    opened: dict[str, str] = {}
    working: dict[str, str] = {}
    services: dict[str, str] = {}
    for entry in case.tape.entries:
        if isinstance(entry, IncidentMoved):
            services[entry.incident] = entry.service
            other = opened.get(entry.service, entry.incident)
            if other != entry.incident:
                yield f"{entry.service} has two open incidents: {other} and {entry.incident}"
            if IncidentState(entry.after).closed:
                opened.pop(entry.service, None)
            else:
                opened[entry.service] = entry.incident
            if entry.before is not None and not without_claim(entry):
                yield from _holds(case, entry.who, entry.owner, f"incident {entry.incident}")
        elif isinstance(entry, IntentMoved):
            service = services[entry.incident]
            yield from _holds(case, entry.who, entry.owner, f"intent {entry.intent}")
            if entry.after == IntentState.EXECUTING:
                other = working.get(service, entry.intent)
                if other != entry.intent:
                    yield f"{service} has two intents under way: {other} and {entry.intent}"
                working[service] = entry.intent
            elif working.get(service) == entry.intent:
                del working[service]


def _holds(case: Case, who: str, owner: str | None, what: str) -> Iterator[str]:
    holder = case.owners.get(owner) if owner is not None else None
    if holder != who:
        yield f"{what} was moved by {who}, while {holder or 'no worker'} holds it"


def within_budget(case: Case) -> Iterator[str]:
    """4: no incident has more actions than its budget, nor all together than theirs, whatever crashed."""
    incident_of, undoing = _intents(case)
    effects: dict[str, set[str]] = defaultdict(set)
    begun: dict[str, set[str]] = defaultdict(set)
    for effect in case.tape.of(Effect):
        if effect.intent not in undoing:
            effects[incident_of.get(effect.intent, "?")].add(effect.intent)
    for moved in case.tape.of(IntentMoved):
        if moved.after == IntentState.EXECUTING and moved.undoes is None:
            begun[moved.incident].add(moved.intent)
    for what, counted in (("effects", effects), ("begun intents", begun)):
        for incident, intents in counted.items():
            if len(intents) > case.scenario.budget:
                yield f"{incident} has {len(intents)} {what}, its budget is {case.scenario.budget}"
    yield from _within_shared_limits(case)
    yield from within_shared_budget(case)


def _within_shared_limits(case: Case) -> Iterator[str]:
    """In every window of the times on record, however far apart the clocks were that gave them."""
    rows = [
        Row(
            intent=intent.id,
            incident=record.incident.id,
            service=str(record.incident.key),
            namespace=intent.action.target.namespace,
            began_at=intent.started_at,
        )
        for record in case.records
        for intent in record.intents
        if intent.undoes is None and intent.started_at is not None and intent.action.target is not None
    ]
    shared = case.scenario.shared
    limits = Set(
        window=timedelta(seconds=shared.window_seconds),
        per_service=shared.per_service,
        per_namespace=None,
        per_cluster=shared.per_cluster,
        services=max(3, case.scenario.services // 2) if shared.fleet_share < 1 else None,
        cooldown=timedelta(seconds=shared.cooldown_seconds),
    )
    yield from beyond(rows, limits)


def dry_run_writes_nothing(case: Case) -> Iterator[str]:
    """5: nothing is written for an incident of a dry run, nor by a process in a dry run."""
    incident_of, _ = _intents(case)
    dry: set[str] = set()
    for entry in case.tape.entries:
        if isinstance(entry, IncidentMoved) and entry.dry_run:
            dry.add(entry.incident)
        elif isinstance(entry, Sent | Effect):
            if entry.who in case.dry_hosts:
                yield f"{entry.who} runs dry, and wrote ({entry.action})"
            if incident_of.get(entry.intent) in dry:
                yield f"{entry.action} for {incident_of[entry.intent]}, which is a dry run"
        elif isinstance(entry, Told) and entry.who in case.dry_hosts:
            yield f"{entry.who} runs dry, and told people"


def high_risk_only_when_allowed(case: Case) -> Iterator[str]:
    """6: a high-risk action takes place only under ALLOW_HIGH_RISK_ACTIONS, and with its approval."""
    intents = {i.id: i for r in case.records for i in r.intents}
    for effect in case.tape.of(Effect):
        name = ActionName(effect.action)
        intent = intents.get(effect.intent)  # type: ignore[call-overload]  # ids on the tape are plain text
        if name is ActionName.RESTORE or ACTIONS[name].risk is not Risk.HIGH:
            continue
        if not case.scenario.allow_high_risk:
            yield f"{name} on {effect.service} is high risk, which is not allowed"
        if case.scenario.approvals and (intent is None or intent.approval is None):
            yield f"{name} on {effect.service} needs an approval, and had none"


def broken_policy_denies(case: Case) -> Iterator[str]:
    """7: only what the policy engine answered with allow (or people, where it asked for them) takes place."""
    answers: dict[tuple[str, str, str], str] = {}
    requested = requested_undos(case)
    decided: dict[str, str | None] = {}
    intents = {str(i.id): i for r in case.records for i in r.intents}
    for entry in case.tape.entries:
        if isinstance(entry, PolicyAnswered):
            answers[entry.who, entry.plan_hash, entry.action] = "broken" if entry.broken else entry.answer
        elif isinstance(entry, IntentMoved) and entry.before is None and entry.intent in intents:
            intent = intents[entry.intent]
            key = (entry.who, intent.decision.plan_hash, intent.action.name.value)
            decided[entry.intent] = answers.get(key)
        elif isinstance(entry, Effect) and entry.intent in intents:
            if intents[entry.intent].undoes is not None and entry.intent not in requested:
                continue
            answer = decided.get(entry.intent)
            approved = answer == DecisionKind.NEEDS_APPROVAL and intents[entry.intent].approval is not None
            if answer != DecisionKind.ALLOW and not approved:
                yield f"{entry.action} on {entry.service} took place; the policy engine: {answer}"


def missing_data_is_no_health(case: Case) -> Iterator[str]:
    """8: no recovery is declared without fresh data, and nothing is planned in a telemetry outage."""
    outages = {a.asked_at for a in case.tape.of(TelemetryAnswered) if a.outage}
    fine = {a.asked_at for a in case.tape.of(TelemetryAnswered) if not a.outage}
    measured = {(a.key, a.asked_at): a.sample for a in case.tape.of(SliAnswered) if a.sample is not None}
    pushed, watched = _pushed(case), ended_by_watch(case)
    for record in case.records:
        incident = record.incident
        if any(i.undoes is None for i in record.intents) and incident.plan is not None:
            planned = incident.plan.at
            if incident.plan.actions and planned in outages and planned not in fine:
                yield f"{incident.id} was planned for at {planned}, in a telemetry outage"
        verdict = incident.verdict
        if incident.state not in _RECOVERIES or incident.id in watched:
            continue
        if verdict is None:
            yield f"{incident.id} ended {incident.state} without a verdict"
            continue
        if verdict.at in outages and verdict.at not in fine:
            yield f"{incident.id} was judged recovered at {verdict.at}, in a telemetry outage"
        if Trigger.HIGH_ERROR_RATE in incident.triggers:
            sample = measured.get((incident.key, verdict.at))
            told = [at for at in pushed[str(incident.key)] if at <= verdict.at + _TOLERANCE]
            if sample is not None and sample.error_rate is not None:
                told.append(sample.at)
            limit = timedelta(seconds=MAX_SAMPLE_AGE_SECONDS) + _TOLERANCE
            if not any(verdict.at - at <= limit for at in told):
                yield f"{incident.id} was judged recovered at {verdict.at} without a fresh error rate"


def evidence_is_evidence(case: Case) -> Iterator[str]:
    """8: missing data, too little of it and a failure to measure are no health, and no reason either."""
    yield from missing_data_is_no_health(case)
    yield from own_measurement_outranks(case)
    yield from no_verdict_on_a_handful(case)
    yield from failing_to_measure_is_no_reason(case)
    yield from later_changes_are_no_cause(case)
    yield from recovers_after_a_soak(case)


def _pushed(case: Case) -> dict[str, list]:  # type: ignore[type-arg]  # datetimes by service
    found: dict[str, list] = defaultdict(list)  # type: ignore[type-arg]  # as above
    for record in case.signals.values():
        if record is not None and hasattr(record.signal.payload, "error_rate"):
            found[str(record.signal.key)].append(record.signal.observed_at)
    return found


def acknowledged_is_kept(case: Case) -> Iterator[str]:
    """9: what was acknowledged is on record, keeps its answer, and ends with a last disposition."""
    first: dict[str, tuple[SignalId, ...]] = {}
    for _, key, answer in case.ledger.acknowledged:
        ids = tuple(a.signal_id for a in answer)
        if key is not None and first.setdefault(key, ids) != ids:
            yield f"the same request was answered with {ids}, and with {first[key]} before"
        for accepted in answer:
            record = case.signals.get(accepted.signal_id)
            if record is None:
                yield f"{accepted.signal_id} was acknowledged, and is not on record"
            elif accepted.disposition.kind not in (DispositionKind.PENDING, record.disposition.kind):
                yield (
                    f"{accepted.signal_id} was answered {accepted.disposition.kind}, "
                    f"and is on record as {record.disposition.kind}"
                )
    incidents = {r.incident.id for r in case.records}
    for signal, record in case.signals.items():
        if record is None:
            continue
        if record.disposition.kind is DispositionKind.PENDING:
            yield f"{signal} is still pending at the end"
        of = record.disposition.incident_id
        yield from _quieted_after_recovery(case, signal, record.disposition)
        attached = record.disposition.kind in (DispositionKind.OPENED, DispositionKind.JOINED)
        if attached and of not in incidents:
            yield f"{signal} is said to be part of {of}, which is not on record"


def _quieted_after_recovery(case: Case, signal: str, given: Disposition) -> Iterator[str]:
    """New symptoms of a service that had recovered are news, whatever the incident ended as."""
    if "the same symptoms as incident" not in given.reason:
        return
    for record in case.records:
        verdict = record.incident.verdict
        if (
            verdict is not None
            and verdict.kind is VerdictKind.RECOVERED
            and record.incident.id in given.reason
        ):
            yield f"{signal} was ignored because of {record.incident.id}, which had ended with a recovery"


def unhelpful_is_undone(case: Case) -> Iterator[str]:
    """10: what did not help is undone, with proof, or the timeline says why not; never repeated."""
    restored = {e.intent: e for e in case.tape.of(Effect) if e.action == ActionName.RESTORE}
    yield from undone_on_request(case)
    yield from watch_does_nothing(case)
    watched = ended_by_watch(case)
    for record in case.records:
        undone = {i.undoes for i in record.intents if i.undoes is not None}
        succeeded = {i.undoes for i in record.intents if i.outcome and i.outcome.kind is OutcomeKind.DONE}
        for intent, helped in _judged(record):
            if helped or intent.action.undo is None:
                continue
            state = IncidentState.ESCALATED if record.incident.id in watched else record.incident.state
            if state.closed and state is not IncidentState.ESCALATED and intent.id not in succeeded:
                yield f"{intent.action.name} of {record.incident.id} stands, and the end is {state}"
            if intent.id in undone:
                continue
            if not _said_why_not(record, intent):
                yield f"{intent.action.name} of {record.incident.id} did not help, and was left standing"
        for intent in record.intents:
            if intent.undoes is not None and intent.outcome is not None:
                yield from _proved(record, intent, restored.get(intent.id))
        yield from _left_unverified(record)
        yield from _innocent(case, record)
        yield from _claimed(case, record)
        yield from _repeated(record)


def _innocent(case: Case, record: IncidentRecord) -> Iterator[str]:
    """An undo is held off only by a change of what the action changed; replicas are an autoscaler's."""
    service = record.incident.key.service
    effects = {e.intent: e for e in case.tape.of(Effect)}
    touched = [m.at for m in case.tape.of(ChangedByOther) if m.service == service]
    for entry in record.timeline:
        intent = str(entry.data.get("undoes"))
        if "undo_outcome" in entry.data:
            continue  # of a request
        if not entry.message.startswith("Not undone") or "changed since" not in entry.message:
            continue
        effect = effects.get(IntentId(intent))
        undone = next(i for i in record.intents if i.id == intent)
        if effect is None or undone.action.name is ActionName.SCALE:
            continue
        later = [e for e in effects.values() if e.service == service and e.at > effect.at]
        if not later and not any(at >= effect.at for at in touched):
            yield f"{undone.action.name} of {record.incident.id} was not undone without another change"


def _claimed(case: Case, record: IncidentRecord) -> Iterator[str]:
    """No end calls a change in place, or credits it, that another person changed well before that end."""
    service, summary = record.incident.key.service, record.incident.summary
    ends = [m.at for m in case.tape.of(IncidentMoved) if m.incident == record.incident.id]
    look = _SLOW_LOOK_SECONDS if case.scenario.odds.slow or case.scenario.pauses else _LOOK_SECONDS
    touched = [m.at for m in case.tape.of(ChangedByOther) if m.service == service]
    effects = {e.intent: e for e in case.tape.of(Effect)}
    _, _, stands = summary.partition("Still in place: ")
    for intent in record.intents:
        effect, target = effects.get(intent.id), intent.action.target
        if effect is None or target is None or not record.incident.state.closed or not ends:
            continue
        if intent.undoes is not None or intent.action.name is ActionName.SCALE or target.kind == "ConfigMap":
            continue
        changed = any(effect.at < at < ends[-1] - look for at in touched)
        named = f"{intent.action.name.words} of {target}"
        if changed and named in stands.partition(".")[0]:
            yield f"{record.incident.id} ended with {named} in place, which somebody had changed"
        verdict, lesson = record.incident.verdict, record.incident.lesson
        credit = verdict is not None and verdict.intent_id == intent.id
        if changed and credit and lesson is not None and lesson.worked:
            yield f"{record.incident.id} credits {named}, which somebody had changed"


def _judged(record: IncidentRecord) -> Iterator[tuple[Intent, bool]]:
    """Each action that took place and was judged, with whether it helped; read from the timeline."""
    done = {str(i.id): i for i in record.intents}
    testing: Intent | None = None
    for entry in record.timeline:
        if entry.message.startswith("Verifying ") and "intent" in entry.data:
            testing = done.get(str(entry.data["intent"]))
        elif "verdict" in entry.data and testing is not None:
            verdict = entry.data["verdict"]
            if verdict != "cannot_tell":
                yield testing, verdict == "recovered"
            testing = None


def _left_unverified(record: IncidentRecord) -> Iterator[str]:
    """What took place in an ended incident got a verdict, or was undone, or its end says that it stands."""
    if not record.incident.state.closed:
        return
    verified, testing = set(), ""
    for entry in record.timeline:
        if entry.message.startswith("Verifying ") and "intent" in entry.data:
            testing = str(entry.data["intent"])
        elif "verdict" in entry.data:
            verified.add(testing)
    undone = {i.undoes for i in record.intents if i.outcome and i.outcome.kind is OutcomeKind.DONE}
    done = [
        i for i in record.intents if i.undoes is None and i.outcome and i.outcome.kind is OutcomeKind.DONE
    ]
    places = {intent.id: place for place, intent in enumerate(record.intents)}

    def completes(later: Intent, earlier: Intent) -> bool:
        return not earlier.action.then_verify and places[later.id] == places[earlier.id] + 1

    for number, intent in enumerate(done):
        together = [intent]
        for later in done[number + 1 :]:
            if completes(later, together[-1]):
                together.append(later)
        if number > 0 and completes(intent, done[number - 1]):
            together.append(done[number - 1])
        if intent.id in undone or any(each.id in verified for each in together):
            continue
        named = intent.action.name.replace("_", " ")
        if f"of {named} was not verified" not in record.incident.summary:
            yield f"{intent.action.name} of {record.incident.id} stands unverified, its end does not say so"


def _said_why_not(record: IncidentRecord, intent: Intent) -> bool:
    return any(
        entry.data.get("undoes") == intent.id and entry.message.startswith("Not undone")
        for entry in record.timeline
    ) or record.incident.summary.startswith("Stage ")


def _proved(record: IncidentRecord, undo: Intent, effect: Effect | None) -> Iterator[str]:
    outcome = undo.outcome.kind if undo.outcome is not None else None
    notes = [e for e in record.timeline if e.data.get("intent") == undo.id and "undoes" in e.data]
    stopped = record.incident.summary.startswith(("Stage ", "The outcome of the action is unknown"))
    said = any(e.message.startswith(("Undo ", "The undo ")) for e in notes)
    if undo.requested_by is not None:
        said |= any("undo_outcome" in e.data for e in record.timeline)
    if not said and not stopped:
        yield f"the undo {undo.id} of {record.incident.id} was never verified ({outcome})"
    undone = next(i for i in record.intents if i.id == undo.undoes)
    if effect is None or undone.snapshot is None or undo.action.target is None:
        return
    if undo.action.target.kind == "ConfigMap" and effect.token_after != undone.snapshot.token:
        yield f"the undo {undo.id} did not put back what was there before"


def _repeated(record: IncidentRecord) -> Iterator[str]:
    """Nothing that failed is done again on the same evidence, which for a plan means: within one incident."""
    failed: dict[str, Intent] = {}
    for intent, helped in _judged(record):
        form = json.dumps(
            [intent.action.name, str(intent.action.target), dict(intent.action.parameters)], sort_keys=True
        )
        if failed.get(form, intent).id != intent.id:
            yield f"{intent.action.name} of {record.incident.id} was repeated after it had not helped"
        if not helped:
            failed[form] = intent


def brakes_hold(case: Case) -> Iterator[str]:
    """11: while the kill switch is engaged no action begins; undoing goes on."""
    engaged, requested = False, requested_undos(case)
    begun: set[str] = set()
    for entry in case.tape.entries:
        if isinstance(entry, BrakeSet):
            engaged = entry.engaged
        elif isinstance(entry, IntentMoved) and entry.after == IntentState.EXECUTING:
            new_attempt = entry.intent not in begun or entry.before == IntentState.DECIDED
            own_undo = entry.undoes is not None and entry.intent not in requested
            if engaged and not own_undo and new_attempt:
                yield f"intent {entry.intent} began while the kill switch was engaged"
            begun.add(entry.intent)
    for record in case.records:
        for intent in record.intents:
            braked = intent.outcome is not None and "kill switch" in intent.outcome.message
            if braked and intent.own_undo:
                yield f"the undo {intent.id} was stopped by the kill switch"
    yield from brakes_hold_requests(case)


def record_is_true(case: Case) -> Iterator[str]:
    """12: timelines are unbroken chains that only grow, and hold no secret."""
    for tampered in case.tape.of(Tampered):
        yield f"the timeline of {tampered.incident} was changed after it was written"
    for record in case.records:
        incident = record.incident
        broken = first_broken(incident.id, record.timeline)
        if broken is not None:
            yield f"the timeline of {incident.id} is broken at entry {broken}"
        length, head = case.heads.get(incident.id, (len(record.timeline), ""))
        last = record.timeline[-1].hash if record.timeline else chain_start(incident.id)
        if length != len(record.timeline) or head not in ("", last):
            yield f"the timeline of {incident.id} lost its end: {len(record.timeline)} of {length}"
        if not record.timeline:
            yield f"{incident.id} has no timeline"
        if SECRET in _text(record.timeline) or SECRET in _text(incident):
            yield f"the record of {incident.id} shows a secret"
    for earlier, later in zip(case.looks, case.looks[1:], strict=False):
        for incident_id, entries in earlier.items():
            if later.get(incident_id, ())[: len(entries)] != entries:
                yield f"the timeline of {incident_id} is not what it was"
    for told in case.tape.of(Told):
        if SECRET in told.text:
            yield "people were told a secret"


def everything_ends(case: Case) -> Iterator[str]:
    """0: after the faults every incident ends, and no intent stays under way."""
    for incident in case.unfinished:
        yield f"{incident} never ended"
    for record in case.records:
        for intent in record.intents:
            if record.incident.state.closed and intent.state is not IntentState.FINISHED:
                yield f"{record.incident.id} ended, and its intent {intent.id} is {intent.state}"
    yield from requests_end(case)
    for defect in case.defects:
        yield f"an unexpected error: {defect}"


def _intents(case: Case) -> tuple[dict[str, str], set[str]]:
    """The incident of each intent, and which intents undo another."""
    moved = list(case.tape.of(IntentMoved))
    return {m.intent: m.incident for m in moved}, {m.intent for m in moved if m.undoes is not None}


def _numbered(case: Case, kind: type) -> Iterator[tuple[int, Any]]:
    return ((n, e) for n, e in enumerate(case.tape.entries) if isinstance(e, kind))


def _text(value: object) -> str:
    """Everything that a value says."""
    if is_dataclass(value) and not isinstance(value, type):
        return " ".join(_text(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, dict):
        return " ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_text(item) for item in value)
    return str(value)


PROMISES: dict[int, Check] = {
    0: everything_ends,
    1: allowed_first,
    2: at_most_once,
    3: one_at_a_time,
    4: within_budget,
    5: dry_run_writes_nothing,
    6: high_risk_only_when_allowed,
    7: broken_policy_denies,
    8: evidence_is_evidence,
    9: acknowledged_is_kept,
    10: unhelpful_is_undone,
    11: brakes_hold,
    12: record_is_true,
    13: stands_on_a_reason,
}
"""By the product's own numbers; 0 is what all of them need: that things come to an end."""

NAMES = {number: check.__name__.replace("_", " ") for number, check in PROMISES.items()}


def broken_promises(case: Case) -> tuple[Violation, ...]:
    """Everything that is wrong with a case."""
    return tuple(
        Violation(seed=case.scenario.seed, promise=number, told=told)
        for number, check in PROMISES.items()
        for told in check(case)
    )
