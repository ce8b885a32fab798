"""Limits over many incidents: no worker, clock or crash ever leads beyond one (promises 4 and 10).

Over the real stores what began is read back as plain rows and judged by an
oracle that knows nothing of how the product counts.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from app.agent.guardrails.freeze import FreezeWindow
from app.agent.guardrails.limits import (
    Budget,
    History,
    LimitName,
    Limits,
    PastAction,
    Proposed,
    Touch,
    exceeded,
)
from app.agent.ids import IncidentId, IntentId
from app.agent.models import (
    ActionName,
    Cause,
    IncidentState,
    Intent,
    OutcomeKind,
)
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.intents import Beginning, Begun
from app.agent.workload import ObjectRef
from app.store import open_store
from tests.contract.store_values import NOW, SNAPSHOT, claimed, closed, intent, key, note, opened, outcome
from tests.contract.test_store_budgets import diagnosis
from tests.contract.test_store_database import engine_of
from tests.limit_oracle import Frozen, Row, Set, beyond
from tests.sizes import examples

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

SERVICES = 6
WINDOW = timedelta(minutes=10)
COOLDOWN = timedelta(minutes=3)
FREEZES = (
    FreezeWindow(name="quarter", length=timedelta(minutes=2), cron="15 * * * *", time_zone="Asia/Kolkata"),
    FreezeWindow(name="odd", length=timedelta(minutes=4), cron="*/20 * * * *", services=("service-1",)),
    FreezeWindow(name="once", length=timedelta(minutes=1), starts_at=NOW + timedelta(minutes=8)),
)
LIMITS = Limits(
    window=WINDOW,
    per_service=2,
    per_namespace=4,
    per_cluster=5,
    fleet_share=0.6,
    cooldown=COOLDOWN,
    freezes=FREEZES,
)
WANTED = Set(
    window=WINDOW,
    per_service=2,
    per_namespace=4,
    per_cluster=5,
    services=3,
    cooldown=COOLDOWN,
    frozen=(
        Frozen(minutes=frozenset({45, 46}), services=None),
        Frozen(minutes=frozenset({0, 1, 2, 3, 20, 21, 22, 23, 40, 41, 42, 43}), services={"service-1"}),
        Frozen(minutes=frozenset({8}), services=None, until=NOW + timedelta(minutes=9)),
    ),
)
_SERVICE = st.integers(0, SERVICES - 1)
_WORKER = st.integers(0, 2)
_MINUTES = st.integers(0, 5)
_ROWS = text(
    "SELECT t.id, t.incident_id, i.service, t.body, t.started_at FROM intents t"
    " JOIN incidents i ON i.id = t.incident_id WHERE t.started_at > '2001-01-01' AND t.undoes IS NULL"
)
_LONG_AGO = "2000-01-01 00:00:00.000000"
_LONG_PAST = (
    "UPDATE intents SET started_at = CAST(:long_ago AS {type}) WHERE started_at IS NOT NULL",
    "UPDATE incidents SET closed_at = CAST(:long_ago AS {type}), state = 'recovered' WHERE closed_at IS NULL",
)


class Fleet(RuleBasedStateMachine):
    """Three workers with clocks of their own act on six services over one database."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.engine = engine_of(self.url)
        self.store: Store = self.runner.run(open_store(self.url))
        with self.engine.begin() as connection:
            kind = "timestamptz" if connection.dialect.name == "postgresql" else "text"
            # Timelines cannot be deleted: what is there becomes history, long past.
            for statement in _LONG_PAST:
                connection.execute(
                    text(statement.format(type=kind)), {"long_ago": "2000-01-01 00:00:00.000000"}
                )
        self.now = NOW
        self.clocks = [timedelta(0)] * 3
        self.open: dict[int, tuple[Claim, Intent]] = {}
        self.begun: set[int] = set()

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        self.engine.dispose()

    @initialize(skews=st.lists(st.integers(-9, 9), min_size=3, max_size=3))
    def clocks_differ(self, skews: list[int]) -> None:
        self.clocks = [timedelta(minutes=each) for each in skews]

    @rule(minutes=_MINUTES)
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(worker=_WORKER, minutes=st.integers(-15, 15))
    def a_clock_jumps(self, worker: int, minutes: int) -> None:
        self.clocks[worker] += timedelta(minutes=minutes)

    @rule(service=_SERVICE, worker=_WORKER)
    def one_begins(self, service: int, worker: int) -> None:
        at = self.now + self.clocks[worker]
        before = self.rows()
        answer = self.runner.run(self._begin(service, at))
        if answer.begun is Begun.BUDGET_SPENT and all(row.began_at <= at for row in before):
            one_more = Row(
                intent="new",
                incident=self.open[service][0].incident_id,
                service=key(service).service,
                namespace=_namespace(service),
                began_at=at,
            )
            assert [*beyond([*before, one_more], WANTED)], f"refused for nothing: {answer.reasons}"

    @rule(services=st.sets(_SERVICE, min_size=2), worker=_WORKER)
    def several_begin_at_once(self, services: set[int], worker: int) -> None:
        async def all_of_them() -> None:
            for service in services:
                await self._ready(service)
            await asyncio.gather(*(self._begin(each, self.now + self.clocks[worker]) for each in services))

        self.runner.run(all_of_them())

    @rule(service=_SERVICE, recovered=st.booleans())
    def an_incident_ends(self, service: int, recovered: bool) -> None:
        if service not in self.begun:
            return
        claim, act = self.open.pop(service)
        self.begun.discard(service)
        end = IncidentState.RECOVERED if recovered else IncidentState.ESCALATED
        self.runner.run(self._end(claim, act, end))

    @rule(service=_SERVICE)
    def an_attempt_is_repeated(self, service: int) -> None:
        if service in self.begun:
            claim, act = self.open[service]
            self.runner.run(self.store.intents.retry(claim, act.id, 9, self.now))

    @rule()
    def everything_dies_and_starts_again(self) -> None:
        self.runner.run(self.store.close())
        self.store = self.runner.run(open_store(self.url))

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        assert [*beyond(self.rows(), WANTED)] == []

    def rows(self) -> list[Row]:
        with self.engine.connect() as connection:
            return [_row(found) for found in connection.execute(_ROWS)]

    async def _ready(self, service: int) -> None:
        if service in self.open:
            return
        incident = await opened(self.store, key(service), at=self.now)
        claim = await claimed(self.store, incident, at=self.now)
        act = intent(incident)
        target = ObjectRef(kind="Deployment", namespace=_namespace(service), name=f"service-{service}")
        act = replace(act, action=replace(act.action, target=target))
        decided = replace(incident, state=IncidentState.EXECUTING, diagnosis=diagnosis())
        await self.store.intents.add(claim, decided, act, [note()])
        self.open[service] = (claim, act)

    async def _begin(self, service: int, at: datetime) -> Beginning:
        await self._ready(service)
        claim, act = self.open[service]
        budget = Budget(per_incident=5, limits=LIMITS, known_services=SERVICES)
        answer = await self.store.intents.begin(claim, act.id, SNAPSHOT, budget, at)
        if answer.begun is Begun.YES:
            self.begun.add(service)
        return answer

    async def _end(self, claim: Claim, act: Intent, end: IncidentState) -> None:
        await self.store.intents.finish(claim, act.id, outcome(), "uid/8", [])
        record = await self.store.incidents.get(claim.incident_id)
        assert record is not None
        await self.store.incidents.save(claim, closed(record.incident, end), [note()])


def _namespace(service: int) -> str:
    return f"space-{service % 2}"


def _row(found: Any) -> Row:
    body = json.loads(found.body) if isinstance(found.body, str) else found.body
    began_at = found.started_at
    if isinstance(began_at, str):
        began_at = datetime.fromisoformat(began_at).replace(tzinfo=NOW.tzinfo)
    began_at = began_at.astimezone(UTC)
    return Row(
        intent=found.id,
        incident=found.incident_id,
        service=found.service,
        namespace=body["action"]["target"]["namespace"],
        began_at=began_at,
    )


def test_no_limit_is_exceeded_on_either_database(database_url: str) -> None:
    """Generated fleets: skewed and jumping clocks, crashes, repeated attempts, many at once."""
    machine = type("FleetOverOneDatabase", (Fleet,), {"url": database_url})
    # Without shrinking: over a real database it would take longer than reading the steps.
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=12, stateful_step_count=30, deadline=None, phases=(Phase.generate,)),
    )


# ---------------------------------------------------------------- waits, over one service


@settings(max_examples=examples(300), deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=40))
def test_every_failure_in_a_row_doubles_the_wait(steps: list[tuple[int, bool]]) -> None:
    """However impatiently it is asked: between two actions lies what the failures before them demand."""
    base, most = timedelta(minutes=5), timedelta(minutes=60)
    limits = Limits(backoff_base=base, backoff_max=most)
    done: list[PastAction] = []
    at = NOW
    for number, (minutes, worked) in enumerate(steps):
        at += timedelta(minutes=minutes)
        if not exceeded(proposed(number), History(service=tuple(done)), limits, None, at):
            done.append(past(number, at, helped=worked))
    in_a_row = 0
    for one, following in itertools.pairwise(done):
        in_a_row = 0 if one.helped else in_a_row + 1
        wait = min(base * 2 ** (in_a_row - 1), most) if in_a_row else timedelta(0)
        assert following.began_at - one.began_at >= wait


_STATES = st.sampled_from(["a", "b", "c"])


@settings(max_examples=examples(300), deadline=None)
@given(wishes=st.lists(_STATES, max_size=12))
def test_the_agent_never_goes_in_a_circle(wishes: list[str]) -> None:
    """Left to itself it leaves every state once: no state that it left is ever brought back by it."""
    limits = Limits(memory=timedelta(days=7))
    now_at, done, visited = "a", list[PastAction](), ["a"]
    for number, wish in enumerate(wishes):
        if wish == now_at:
            continue
        asked = replace(proposed(number), leaves=now_at, reaches=wish)
        at = NOW + timedelta(minutes=number)
        if exceeded(asked, History(service=tuple(done)), limits, None, at):
            continue
        done.append(replace(past(number, at, helped=True), leaves=now_at, reaches=wish))
        now_at = wish
        visited.append(wish)
    assert len(set(visited)) == len(visited)


def test_what_people_changed_in_between_is_no_circle() -> None:
    """The agent took a to b, people made it c: going to a from there undoes nothing of the agent's."""
    limits = Limits(memory=timedelta(days=7))
    history = History(service=(replace(past(0, NOW, helped=True), leaves="a", reaches="b"),))
    back, elsewhere = (replace(proposed(1), leaves=leaves, reaches="a") for leaves in ("b", "c"))
    assert _exceeds(back, history, limits) == [LimitName.OSCILLATION]
    assert _exceeds(elsewhere, history, limits) == []


def test_an_undone_action_is_not_done_again() -> None:
    """A, its undo, A again: the undo left the state that A would bring back."""
    limits = Limits(memory=timedelta(days=7))
    first = replace(past(0, NOW, helped=False), leaves="a", reaches="b", evidence="other")
    undo = replace(
        past(0, NOW + timedelta(minutes=5), helped=None),
        intent_id=IntentId("undo"),
        action=ActionName.RESTORE,
        leaves="b",
        reaches="a",
        undoes=first.intent_id,
    )
    again = replace(proposed(1), leaves="a", reaches="b")
    assert _exceeds(again, History(service=(first, undo)), limits) == [LimitName.OSCILLATION]


def test_an_attempt_that_had_no_effect_is_no_evidence() -> None:
    """What the API server refused changed nothing, so it may be tried again."""
    limits = Limits(memory=timedelta(days=7))
    failed = past(0, NOW, helped=False)
    assert _exceeds(proposed(1), History(service=(failed,)), limits) == [LimitName.SAME_EVIDENCE]
    refused = replace(failed, outcome=OutcomeKind.FAILED)
    assert _exceeds(proposed(1), History(service=(refused,)), limits) == []


@pytest.mark.parametrize("other", ["evidence", "action", "parameters", "target"])
def test_other_evidence_or_another_action_is_not_the_same(other: str) -> None:
    """Only the very same thing is held back."""
    limits = Limits(memory=timedelta(days=7))
    values: dict[str, Any] = {
        "evidence": "else",
        "action": ActionName.SCALE,
        "parameters": (("replicas", "5"),),
        "target": ObjectRef(kind="ConfigMap", namespace="prod", name="shop"),
    }
    history = History(service=(past(0, NOW, helped=False),))
    assert _exceeds(replace(proposed(1), **{other: values[other]}), history, limits) == []


def test_the_same_content_under_another_number_is_the_same() -> None:
    """Rolling back and undoing it renumbers the revisions; what the action reaches stays what it is."""
    limits = Limits(memory=timedelta(days=7))
    before = replace(past(0, NOW, helped=False), reaches="template a")
    again = replace(proposed(1), parameters=(("revision", "8"),), reaches="template a")
    other = replace(again, reaches="template b")
    assert _exceeds(again, History(service=(before,)), limits) == [LimitName.SAME_EVIDENCE]
    assert _exceeds(other, History(service=(before,)), limits) == []


def test_what_is_older_than_the_memory_is_forgotten() -> None:
    """After that people have long had it in hand."""
    history = History(service=(past(0, NOW - timedelta(days=8), helped=False),))
    assert _exceeds(proposed(1), history, Limits(memory=timedelta(days=7))) == []
    assert _exceeds(proposed(1), history, Limits(memory=timedelta(days=9))) == [LimitName.SAME_EVIDENCE]


def test_without_settings_nothing_is_limited() -> None:
    """The bare values hold nothing back, whatever went before."""
    many = tuple(past(n, NOW, helped=False) for n in range(50))
    window = tuple(
        Touch(intent_id=p.intent_id, key=p.key, namespace=p.namespace, began_at=p.began_at) for p in many
    )
    assert _exceeds(proposed(99), History(window=window, service=many), Limits()) == []


def _exceeds(asked: Proposed, history: History, limits: Limits) -> list[LimitName]:
    at = NOW + timedelta(hours=1)
    return [each.limit for each in exceeded(asked, history, limits, 10, at)]


_TARGET = ObjectRef(kind="Deployment", namespace="prod", name="shop")


def proposed(number: int) -> Proposed:
    return Proposed(
        incident_id=IncidentId(f"inc_{number}"),
        key=key(0),
        namespace="prod",
        action=ActionName.ROLLBACK,
        target=_TARGET,
        parameters=(("revision", "6"),),
        plan_hash=f"plan {number}",
        cause=Cause.BAD_RELEASE,
        evidence="seen",
    )


def past(number: int, at: datetime, *, helped: bool | None) -> PastAction:
    return PastAction(
        intent_id=IntentId(f"int_{number:04}"),
        incident_id=IncidentId(f"inc_{number}"),
        key=key(0),
        namespace="prod",
        action=ActionName.ROLLBACK,
        target=_TARGET,
        parameters=(("revision", "6"),),
        plan_hash=f"plan {number}",
        cause=Cause.BAD_RELEASE,
        evidence="seen",
        began_at=at,
        outcome=OutcomeKind.DONE,
        helped=helped,
    )
