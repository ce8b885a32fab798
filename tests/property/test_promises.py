"""The promises under generated misfortune: crashes, lost answers, refusals and meddling, at any call.

The agent is the real one over the simulated world. A crash throws everything in
memory away and starts a new agent on the same database, as kill -9 does.
"""

from __future__ import annotations

import inspect
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.agent.ids import IncidentId, IntentId
from app.agent.models import (
    DecisionKind,
    IncidentState,
    Intent,
    IntentState,
    OutcomeKind,
)
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.timeline import verify_chain
from app.bootstrap import Adapters
from app.errors import TransientError, UnknownOutcome
from tests.repositories import exchanged
from tests.stories import NAMESPACE, SERVICE, Story, messages, story

BUDGET = 2
LIMIT_SECONDS = 3600.0
SHAKEN = frozenset(
    {
        "accept",
        "save",
        "add",
        "begin",
        "finish",
        "record_revision",
        "apply",
        "target",
        "snapshot",
        "rehearse",
        "workload",
    }
)


class Killed(BaseException):
    """The process is gone; nothing may catch this but the test."""


class Misfortune(StrEnum):
    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"
    REFUSED = "refused for now"
    ANSWER_LOST = "answer lost"
    MEDDLED = "somebody changed the object"


@dataclass
class Fate:
    """What befalls which call, counted from the moment the fault strikes."""

    plan: dict[int, Misfortune]
    meddle: Callable[[], None] = lambda: None
    begun: bool = False
    calls: int = 0
    effects: Counter[IntentId] = field(default_factory=Counter)
    unfounded: list[str] = field(default_factory=list)
    intents: Callable[[], Awaitable[dict[IntentId, Intent]]] | None = None


class Shaken:
    """An adapter on which misfortunes fall."""

    def __init__(self, inner: object, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in SHAKEN or not inspect.iscoroutinefunction(found):
            return found

        async def shaken(*arguments: Any, **named: Any) -> Any:
            fate = self._fate
            befalls = fate.plan.get(fate.calls) if fate.begun else None
            fate.calls += fate.begun
            if befalls is Misfortune.KILLED_BEFORE:
                raise Killed
            if befalls is Misfortune.REFUSED:
                raise TransientError("not now")
            if befalls is Misfortune.MEDDLED:
                fate.meddle()
            if name == "apply":
                await _expect_durable_permission(fate, arguments[1])
            answer = await found(*arguments, **named)
            if name == "apply":
                fate.effects[arguments[1]] += 1
            if befalls is Misfortune.KILLED_AFTER:
                raise Killed
            if befalls is Misfortune.ANSWER_LOST:
                raise UnknownOutcome("gone") if name == "apply" else TransientError("gone")
            return answer

        return shaken


async def _expect_durable_permission(fate: Fate, intent_id: IntentId) -> None:
    """Promises 1 and 2, seen from the target: the intent is on record, allowed and executing."""
    assert fate.intents is not None
    intent = (await fate.intents()).get(intent_id)
    if intent is None or intent.state is not IntentState.EXECUTING:
        fate.unfounded.append(f"{intent_id} reached the target without being on record as executing")
    elif intent.decision.kind is not DecisionKind.ALLOW:
        fate.unfounded.append(f"{intent_id} reached the target on a {intent.decision.kind}")


misfortunes = st.dictionaries(
    st.integers(min_value=0, max_value=60), st.sampled_from(Misfortune), min_size=1, max_size=6
)
faults = st.sampled_from(["shop:2-crash", "shop:2-errors", "shop:2-missing"])


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
@given(plan=misfortunes, image=faults)
async def test_no_misfortune_breaks_a_promise(plan: dict[int, Misfortune], image: str) -> None:
    """At most one effect an intent, none without permission, budget kept, an end, an unbroken record."""
    with tempfile.TemporaryDirectory() as directory:
        await _suffer(Path(directory), plan, image)


async def _suffer(directory: Path, plan: dict[int, Misfortune], image: str) -> None:
    fate = Fate(plan)

    def shaken(world: Adapters) -> Adapters:
        return replace(
            world,
            reader=Shaken(world.reader, fate),
            rehearsal=Shaken(world.rehearsal, fate),
            writer=Shaken(world.writer, fate),
        )

    async with story(
        directory,
        connected=shaken,
        shaken_store=lambda store: exchanged(
            store,
            **{
                name: Shaken(getattr(store, name), fate)
                for name in ("signals", "incidents", "intents", "history")
            },
        ),
        dry_run=False,
        allow_high_risk_actions=True,
        max_actions_per_incident=BUDGET,
    ) as stage:
        stage.deploy()
        await stage.live(180)
        fate.meddle = lambda: stage.world.set_env(
            NAMESPACE, SERVICE, {"TOUCHED": str(stage.clock.now().timestamp())}
        )
        fate.intents = lambda: _all_intents(stage)
        stage.world.release(NAMESPACE, SERVICE, image)
        fate.begun = True
        await _live_through(stage)
        records = [await stage.load(i) for i in await _incident_ids(stage)]
        told = "\n".join(messages(r.timeline) for r in records)
        assert fate.unfounded == [], told
        assert all(count == 1 for count in fate.effects.values()), f"{fate.effects}\n{told}"
        for record in records:
            begun = [i for i in record.intents if i.started_at is not None and i.undoes is None]
            assert len(begun) <= BUDGET, told
            assert verify_chain(record.incident.id, record.timeline)
            assert record.incident.state.closed, told
            done = {i.id for i in record.intents if i.outcome and i.outcome.kind is OutcomeKind.DONE}
            real = {i.id for i in record.intents if fate.effects[i.id]}
            assert done <= real, told
            assert record.incident.state is not IncidentState.RECOVERED or done, told


async def _live_through(stage: Story) -> None:
    """Run until every incident has ended, with a new start after each crash."""
    lived = 0.0
    while lived < LIMIT_SECONDS:
        lived += 5
        try:
            await stage.live(5)
        except Killed:
            await stage.restart()
        except TransientError:
            continue
        ids = await _incident_ids(stage)
        if ids and not await stage.agent.store.incidents.all_open():
            return
    raise AssertionError("an incident never ended")


async def _incident_ids(stage: Story) -> list[IncidentId]:
    page = await stage.agent.store.incidents.find(IncidentFilter(service=SERVICE), limit=50, cursor=None)
    return [item.incident.id for item in page.items]


async def _all_intents(stage: Story) -> dict[IntentId, Intent]:
    page = await stage.agent.store.incidents.find(IncidentFilter(service=SERVICE), limit=50, cursor=None)
    return {intent.id: intent for item in page.items for intent in item.intents}
