"""The contract of statistics: every number agrees with one computed from whole records, on both databases."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from alembic import command
from sqlalchemy import select, text

from app.agent.analytics import report as reporting
from app.agent.analytics.report import Statistics, StatsFilter, report
from app.agent.analytics.shadow import Judged
from app.agent.analytics.times import Proportion, Spread
from app.agent.guardrails.limits import Budget
from app.agent.identity.people import Person
from app.agent.ids import ServiceKey
from app.agent.memory import lesson
from app.agent.models import (
    ActionName,
    Cause,
    Change,
    ChangeKind,
    DecisionKind,
    Diagnosis,
    DispositionKind,
    Hypothesis,
    Incident,
    IncidentState,
    Intent,
    IntentState,
    Outcome,
    OutcomeKind,
    Plan,
    Trigger,
    Verdict,
    VerdictKind,
)
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.responders.request import ResponderAct, ResponderRequest
from app.store import open_store
from app.store.database.migrate import migration_config
from app.store.database.tables import incidents, intents
from tests import statistics_oracle as oracle
from tests.contract.store_values import (
    NOW,
    SNAPSHOT,
    Deciding,
    approval,
    claimed,
    intent,
    key,
    loaded,
    note,
    signal,
)
from tests.contract.test_store_database import engine_of
from tests.statistics_oracle import Known

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

ANN = Person(name="ann")
SERVICES = [
    ServiceKey(environment=environment, service=name)
    for environment in ("prod", "staging")
    for name in ("cart", "shop", "search", "mail", "api")
]
TRIGGERS = [(Trigger.DEPLOY_FAILED,), (Trigger.HIGH_LATENCY,), (Trigger.HIGH_ERROR_RATE, Trigger.CRASH_LOOP)]
CAUSES = [None, Cause.BAD_RELEASE, Cause.BAD_CONFIG, Cause.UNKNOWN]
REASONS = ["rollback is high risk", "the kill switch was engaged", "a freeze window"]
SINCE, UNTIL = NOW + timedelta(days=5), NOW + timedelta(days=45)


async def history(store: Store, seed: int, size: int) -> list[Known]:
    """Incidents that went every way there is, one after another on each service."""
    chance = random.Random(seed)  # noqa: S311 - reproducible on purpose
    known, at = [], dict.fromkeys(SERVICES, NOW)
    for _ in range(size):
        key = chance.choice(sorted(at))
        at[key] += timedelta(seconds=chance.randrange(600, 5 * 86400), microseconds=chance.randrange(10**6))
        known.append(await _incident(store, key, at[key], chance))
        if (await loaded(store, known[-1][0])).closed_at is None:
            del at[key]
        else:
            at[key] += timedelta(days=1)
    found = []
    for one in known:
        record = await store.incidents.get(one[0])
        assert record is not None
        found.append(Known(record=record, began_at=one[1]))
    return found


async def _incident(store: Store, key: ServiceKey, at: datetime, chance: random.Random) -> tuple[Any, Any]:
    stale, dry_run = chance.random() < 0.1, chance.random() < 0.4
    seen = at - timedelta(seconds=chance.randrange(0, 400), milliseconds=chance.randrange(1000))
    opening = replace(signal(key=key, at=at, stale=stale), observed_at=seen)
    [accepted] = await store.signals.accept(
        [opening], Deciding(triggers=chance.choice(TRIGGERS)), dry_run=dry_run
    )
    assert accepted.disposition.incident_id is not None
    incident = await loaded(store, accepted.disposition.incident_id)
    began = None if stale else seen
    if chance.random() < 0.03:
        return incident.id, began
    claim = await claimed(store, incident, at=at)
    incident = await store.incidents.save(claim, _diagnosed(incident, at, chance), [note(at=at)])
    if incident.plan is not None:
        for sequence in range(chance.randrange(3)):
            incident = await _action(store, claim, incident, sequence, at, chance)
    if chance.random() < 0.3:
        await _asked(store, claim, at, chance)
    if chance.random() < 0.5:
        await _respond(store, incident, ResponderAct.ACKNOWLEDGE, _after(at, chance))
    await _end(store, claim, at, chance)
    return incident.id, began


def _after(at: datetime, chance: random.Random) -> datetime:
    return at + timedelta(seconds=chance.choice((20, 200, 2000, 20000)), microseconds=chance.randrange(10**6))


def _diagnosed(incident: Incident, at: datetime, chance: random.Random) -> Incident:
    cause = chance.choice(CAUSES)
    if cause is None:
        return incident
    best = Hypothesis(cause=cause, confidence=0.9, rule="rule", evidence_for=("seen",))
    runbook = chance.choice((None, "roll-back@1", "restart@2"))
    plan = Plan(runbook=runbook, runbook_hash=None, actions=(), rejected=(), hash="abc", at=at)
    return replace(incident, diagnosis=Diagnosis(hypotheses=(best,), at=at), plan=plan)


async def _action(
    store: Store, claim: Claim, incident: Incident, sequence: int, at: datetime, chance: random.Random
) -> Incident:
    kind = chance.choice(list(DecisionKind))
    act = intent(incident, sequence, kind=kind, dry_run=incident.dry_run)
    action = replace(act.action, name=chance.choice((ActionName.ROLLBACK, ActionName.RESTART)))
    decided_at = at + timedelta(seconds=30 + sequence, microseconds=chance.randrange(10**6))
    decision = replace(act.decision, at=decided_at, reasons=(chance.choice(REASONS), "more"))
    act = replace(act, action=action, decision=decision)
    if incident.dry_run or kind is not DecisionKind.ALLOW:
        over = OutcomeKind.REHEARSED if incident.dry_run else OutcomeKind.REFUSED
        ended = Outcome(kind=over, message="not done", at=decided_at)
        act = replace(act, state=IntentState.FINISHED, outcome=ended)
        return await store.intents.add(claim, incident, act, [note(at=at)])
    incident = await store.intents.add(claim, incident, act, [note(at=at)])
    await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=5), decided_at)
    ended = Outcome(
        kind=chance.choice((OutcomeKind.DONE, OutcomeKind.DONE, OutcomeKind.FAILED)),
        message="as the server said",
        at=decided_at,
    )
    await store.intents.finish(claim, act.id, ended, "uid/8", [])
    return incident


async def _asked(store: Store, claim: Claim, at: datetime, chance: random.Random) -> None:
    incident = await loaded(store, claim.incident_id)
    asked = replace(approval(incident, expires_at=at + timedelta(days=1)), requested_at=at)
    waiting = replace(incident, state=IncidentState.AWAITING_APPROVAL)
    await store.approvals.request(claim, waiting, asked, [note(at=at)])
    if chance.random() < 0.7:
        await store.approvals.answer(
            asked.id, approve=chance.random() < 0.6, by=ANN, comment="", at=_after(at, chance)
        )
    await store.incidents.save(
        claim, replace(await loaded(store, claim.incident_id), state=IncidentState.OPEN), []
    )


async def _respond(store: Store, incident: Incident, act: ResponderAct, at: datetime) -> None:
    await store.responders.respond(incident.id, ResponderRequest(act=act, by=ANN, at=at, text="seen"))


async def _end(store: Store, claim: Claim, at: datetime, chance: random.Random) -> None:
    record = await store.incidents.get(claim.incident_id)
    assert record is not None
    incident, ended_at = record.incident, _after(at, chance)
    real = [i for i in record.intents if i.outcome is not None and i.outcome.kind is OutcomeKind.DONE]
    way = chance.choice(("recovered", "recovered", "alone", "escalated", "by hand") * 3 + ("open",))
    if way == "open":
        return
    if way == "by hand":
        await _respond(store, incident, ResponderAct.RESOLVE, ended_at)
        return
    verdict, state = None, IncidentState.PROPOSED if incident.dry_run else IncidentState.ESCALATED
    if way == "recovered" and real:
        verdict, state = _verdict(ended_at, real[-1]), IncidentState.RECOVERED
    elif way == "alone":
        verdict, state = _verdict(ended_at, None), IncidentState.RECOVERED_WITHOUT_ACTION
    record = replace(record, incident=replace(incident, verdict=verdict))
    ended = replace(record.incident, state=state, closed_at=ended_at, lesson=lesson(record, ended_at))
    await store.incidents.save(claim, ended, [note(at=ended_at)])
    if state is IncidentState.ESCALATED and chance.random() < 0.5:
        await _respond(store, ended, ResponderAct.RESOLVE, ended_at + timedelta(hours=3, seconds=0.7))


def _verdict(at: datetime, judged: Intent | None) -> Verdict:
    return Verdict(
        kind=VerdictKind.RECOVERED,
        reasons=("healthy",),
        at=at,
        intent_id=None if judged is None else judged.id,
    )


FILTERS: list[dict[str, Any]] = [
    {},
    {"weekly": True, "manual": timedelta(minutes=5)},
    {"environment": "prod"},
    {"service": "shop", "severity": "critical"},
    {"cause": Cause.BAD_RELEASE},
    {"severity": "minor"},
    {"since": NOW - timedelta(days=1), "until": NOW + timedelta(days=900)},
    {"environment": "nowhere"},
    {"environment": "prod", "severity": "minor"},
    {"environment": "prod", "cause": Cause.BAD_RELEASE, "severity": "major"},
]


async def test_every_number_agrees_with_the_records(store: Store) -> None:
    """Times, ends, causes, services, runbooks, decisions, approvals, savings; counted, and rolled up."""
    everything = await history(store, seed=7, size=70)
    assert {one.record.incident.state for one in everything} >= {
        state for state in IncidentState if state.closed
    }
    await _every_filter_agrees(store, everything)
    assert await store.statistics.roll_up(UNTIL) > 30
    await _every_filter_agrees(store, everything)


async def _every_filter_agrees(store: Store, everything: list[Known]) -> None:
    for given in FILTERS:
        where = StatsFilter(**{"since": SINCE, "until": UNTIL, **given})
        found = report(where, await store.statistics.counted(where))
        _agrees(found, where, everything)


def _agrees(found: Statistics, where: StatsFilter, everything: list[Known]) -> None:
    chosen = oracle.opened_within(where, everything)
    _ends_agree(found.ends, chosen)
    for kind in ("detect", "acknowledge", "restore"):
        _spread_agrees(getattr(found, kind), oracle.durations(kind, chosen))
    by_cause = Counter(map(oracle.cause_of, chosen))
    assert {cause: ends.incidents for cause, ends in found.causes} == by_cause
    for cause, ends in found.causes:
        _ends_agree(ends, [one for one in chosen if oracle.cause_of(one) == cause])
    by_service = Counter(one.record.incident.key for one in chosen)
    assert {one.key: one.incidents for one in found.services} == by_service
    for one in found.services:
        mine = [known for known in chosen if known.record.incident.key == one.key]
        assert one.recovered == oracle.states(mine)[IncidentState.RECOVERED]
        assert one.escalated == oracle.states(mine)[IncidentState.ESCALATED]
        assert one.restore_seconds == sum(oracle.durations("restore", mine))
    _trend_agrees(found, where, chosen)
    _runbooks_agree(found, chosen)
    assert {
        (one.action, one.decision, one.result, one.dry_run): one.number for one in found.decisions
    } == oracle.decisions(where, everything)
    assert {(one.decision, one.reason): one.number for one in found.reasons} == oracle.reasons(
        where, everything
    )
    _approvals_agree(found, where, everything)
    _rest_agrees(found, where, chosen, everything)


def _ends_agree(ends: reporting.Ends, chosen: list[Known]) -> None:
    states, restored = oracle.states(chosen), oracle.durations("restore", chosen)
    assert ends.incidents == len(chosen)
    assert ends.active == sum(one.record.incident.closed_at is None for one in chosen)
    for name in ("recovered", "recovered_without_action", "resolved_by_hand", "escalated", "proposed"):
        assert getattr(ends, name) == states[IncidentState(name)]
    assert ends.restore_mean == (pytest.approx(sum(restored) / len(restored)) if restored else None)


def _spread_agrees(spread: Spread, values: list[int]) -> None:
    assert spread.count == len(values) == sum(spread.bars)
    assert spread.mean == (pytest.approx(sum(values) / len(values)) if values else None)
    for percent in (50, 90, 95, 99):
        assert getattr(spread, f"p{percent}") == oracle.percentile(values, percent)
    assert spread.longest == max(values, default=None)
    assert spread.bars[0] == sum(value < 60 for value in values)
    assert spread.bars[-1] == sum(value >= 86400 for value in values)


def _trend_agrees(found: Statistics, where: StatsFilter, chosen: list[Known]) -> None:
    starts = [point.start for point in found.trend]
    step = timedelta(days=7 if where.weekly else 1)
    assert all(later - earlier == step for earlier, later in pairwise(starts))
    groups: dict[Any, list[Known]] = {}
    for one in chosen:
        opened_at = one.record.incident.opened_at
        start = (oracle.monday(opened_at) if where.weekly else opened_at).date()
        groups.setdefault(start, []).append(one)
    assert set(groups) <= set(starts)
    for point in found.trend:
        mine = groups.get(point.start, [])
        _ends_agree(point.ends, mine)
        for mean, kind in ((point.detect_mean, "detect"), (point.acknowledge_mean, "acknowledge")):
            values = oracle.durations(kind, mine)
            assert mean == (pytest.approx(sum(values) / len(values)) if values else None)


def _runbooks_agree(found: Statistics, chosen: list[Known]) -> None:
    planned: dict[str, list[Known]] = {}
    for one in chosen:
        plan = one.record.incident.plan
        if plan is not None and plan.runbook is not None:
            planned.setdefault(plan.runbook, []).append(one)
    assert {one.runbook: one.planned for one in found.runbooks} == {
        name: len(mine) for name, mine in planned.items()
    }
    for result in found.runbooks:
        mine = planned[result.runbook]
        # A person who resolves an incident ends it without a verdict on the action.
        acted = [one for one in mine if one.record.incident.lesson is not None and oracle.done(one)]
        recovered = [one for one in acted if one.record.incident.state is IncidentState.RECOVERED]
        _share_agrees(result.worked, len(recovered), len(acted))


def _share_agrees(share: Proportion, hits: int, of: int) -> None:
    assert (share.hits, share.of) == (hits, of)
    if of:
        assert share.value == pytest.approx(hits / of)
        assert (share.low, share.high) == pytest.approx(oracle.wilson(hits, of), abs=1e-9)
    else:
        assert share.value is None


def _approvals_agree(found: Statistics, where: StatsFilter, everything: list[Known]) -> None:
    asked = [
        one
        for known in everything
        if oracle.about(where, known)
        for one in known.record.approvals
        if oracle.within(where, one.requested_at)
    ]
    assert found.approvals == Counter(one.state for one in asked)
    waits = [oracle.seconds(one.requested_at, one.answered_at) for one in asked if one.answered_by]
    _spread_agrees(found.wait, [wait for wait in waits if wait is not None])


def _rest_agrees(found: Statistics, where: StatsFilter, chosen: list[Known], everything: list[Known]) -> None:
    by_day = oracle.began(where, everything)
    assert found.actions == sum(day.total() for day in by_day.values())
    if found.busiest is not None:
        assert found.busiest.actions == max(day.total() for day in by_day.values())
        assert found.busiest.most_of_service == max(by_day[found.busiest.day].values())
    alone = oracle.states(chosen)[IncidentState.RECOVERED_WITHOUT_ACTION]
    ended = sum(one.record.incident.closed_at is not None for one in chosen)
    _share_agrees(found.false_alarms, alone, ended)
    healed = [one for one in chosen if one.record.incident.state is IncidentState.RECOVERED]
    assert found.healed == len(healed)
    manual = where.manual.total_seconds()
    assert found.saved_seconds == sum(max(0, manual - took) for took in oracle.durations("restore", healed))


async def test_what_ended_before_the_upgrade_is_completed_by_it(database_url: str) -> None:
    """The columns of the migration are those that the program writes, but for the first observation."""
    store = await open_store(database_url)
    await history(store, seed=3, size=25)
    await store.close()
    before = _rows(database_url)
    with engine_of(database_url).begin() as connection:
        command.downgrade(migration_config(connection), "0007")
    await (await open_store(database_url)).close()
    after = _rows(database_url)
    ended = {row.id for row in before[0] if row.closed_at is not None}
    rows, again_rows = ([one for one in found[0] if one.id in ended] for found in (before, after))
    for row, again in zip(rows, again_rows, strict=True):
        for name in ("cause", "severity", "runbook", "worked"):
            assert getattr(row, name) == getattr(again, name), name
        for name in ("acknowledged_at", "restored_at"):
            assert _to_milliseconds(getattr(row, name)) == _to_milliseconds(getattr(again, name)), name
    assert len(ended) > 10
    for row, again in zip(before[1], after[1], strict=True):
        for name in ("action", "decision", "reason", "result"):
            assert getattr(row, name) == getattr(again, name), name
        assert _to_milliseconds(row.decided_at) == _to_milliseconds(again.decided_at)


def _rows(database_url: str) -> tuple[list[Any], list[Any]]:
    with engine_of(database_url).connect() as connection:
        return (
            list(connection.execute(select(incidents).order_by(incidents.c.id))),
            list(connection.execute(select(intents).order_by(intents.c.id))),
        )


def _to_milliseconds(at: datetime | None) -> int | None:
    """What SQLite's own functions keep of a time."""
    return None if at is None else round(at.timestamp() * 1000)


async def test_what_a_program_of_the_version_before_writes_is_counted(
    store: Store, database_url: str
) -> None:
    """Without what it does not write: during a rolling upgrade both versions open and end incidents."""
    [one] = await history(store, seed=1, size=1)
    with engine_of(database_url).begin() as connection:
        connection.execute(
            text(
                "UPDATE incidents SET state = 'recovered', closed_at = opened_at, cause = NULL,"
                " severity = NULL, runbook = NULL, worked = NULL, began_at = NULL, restored_at = NULL"
            )
        )
    where = StatsFilter(since=NOW, until=NOW + timedelta(days=90))
    found = report(where, await store.statistics.counted(where))
    assert (found.ends.incidents, found.ends.recovered, found.restore.count) == (1, 1, 0)
    assert [cause for cause, _ in found.causes] == [None]
    assert one.record.incident.opened_at.date() == found.trend[0].start


CASES = [
    (ChangeKind.DEPLOY, True, False, Judged.CONFIRMED),
    (ChangeKind.DEPLOY, False, False, Judged.CONFIRMED),
    (ChangeKind.DEPLOY, True, True, Judged.CONTRADICTED),
    (ChangeKind.CONFIG, True, False, Judged.UNKNOWN),
    (None, True, False, Judged.NOT_NEEDED),
    (None, True, True, Judged.UNKNOWN),
    (None, False, False, Judged.UNKNOWN),
]
"""A person's change, whether the service recovered in the watch, whether it failed again; the judgement."""


async def test_proposals_are_judged_by_what_happened(store: Store) -> None:
    """A matching change, a recovery without one, or no evidence; each is judged once, after hours."""
    for number, (change, recovered, again, _) in enumerate(CASES):
        await _proposed(store, key(number), f"case@{number}", change, recovered=recovered, again=again)
    long_ago = NOW - timedelta(days=7)
    assert await store.statistics.judge(NOW + timedelta(hours=5), long_ago) == 0
    assert await store.statistics.judge(NOW + timedelta(hours=7), long_ago) == len(CASES)
    assert await store.statistics.judge(NOW + timedelta(hours=8), long_ago) == 0
    where = StatsFilter(since=NOW, until=NOW + timedelta(minutes=1))
    found = report(where, await store.statistics.counted(where))
    scores = {score.runbook: score for score in found.shadow}
    for number, (*_, right) in enumerate(CASES):
        score = scores[f"case@{number}"]
        assert {kind for kind, count in score.judgements.items() if count} == {right}
        assert (score.proposed, score.right.hits) == (1, right is Judged.CONFIRMED)
        assert score.right.of == (right is not Judged.UNKNOWN)
    # What a person's change ended is no false alarm.
    assert found.false_alarms.hits == sum(case[1] and case[3] is not Judged.CONFIRMED for case in CASES)


async def test_a_change_that_may_have_been_forgotten_is_not_missed(store: Store) -> None:
    """Where changes are not kept for as long, a recovery without one is no evidence."""
    await _proposed(store, key(1), "case@1", None, recovered=True, again=False)
    assert await store.statistics.judge(NOW + timedelta(hours=7), NOW + timedelta(hours=1)) == 1
    where = StatsFilter(since=NOW, until=NOW + timedelta(minutes=1))
    [score] = report(where, await store.statistics.counted(where)).shadow
    assert score.judgements[Judged.UNKNOWN] == 1


async def _proposed(
    store: Store, of: ServiceKey, runbook: str, change: ChangeKind | None, *, recovered: bool, again: bool
) -> None:
    """A dry run that proposed a rollback, and what happened to the service after it."""
    [accepted] = await store.signals.accept([signal(key=of)], Deciding(), dry_run=True)
    assert accepted.disposition.incident_id is not None
    incident = await loaded(store, accepted.disposition.incident_id)
    claim = await claimed(store, incident)
    plan = Plan(runbook=runbook, runbook_hash=None, actions=(), rejected=(), hash="abc", at=NOW)
    act = replace(intent(incident, dry_run=True), state=IntentState.FINISHED)
    act = replace(act, outcome=Outcome(kind=OutcomeKind.REHEARSED, message="", at=NOW))
    incident = await store.intents.add(claim, replace(incident, plan=plan), act, [note()])
    state = IncidentState.RECOVERED_WITHOUT_ACTION if recovered else IncidentState.PROPOSED
    ended_at = NOW + timedelta(minutes=20)
    await store.incidents.save(claim, replace(incident, state=state, closed_at=ended_at), [note()])
    if change is not None:
        made = Change(kind=change, key=of, at=NOW + timedelta(minutes=10), summary="changed")
        ignored = Deciding(kind=DispositionKind.IGNORED, triggers=(), change=made)
        await store.signals.accept([signal(key=of, at=made.at)], ignored, dry_run=True)
    if again:
        later = NOW + timedelta(minutes=50)
        await store.signals.accept([signal(key=of, at=later)], Deciding(), dry_run=True)
