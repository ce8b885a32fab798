"""Changes of a Rollout's status, which carry no marker, are sent at most once (promise 2)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.agent.guardrails.opt_out import OptOut
from app.agent.guardrails.target_token import ABORTED, ABORTED_AT, STEP, with_parts
from app.agent.ids import IntentId, ServiceKey
from app.agent.models import (
    Action,
    ActionName,
    IncidentRecord,
    IncidentState,
    OutcomeKind,
    Rehearsal,
    Snapshot,
)
from app.agent.workload import ObjectRef, RolloutProgress, TargetState, WorkloadView
from app.bootstrap import Adapters
from app.errors import Conflict, UnknownOutcome
from tests.stories import ACTING, NAMESPACE, SERVICE, Story, messages, story
from tests.test_interruptions import Killed

REF = ObjectRef(kind="Rollout", namespace=NAMESPACE, name=SERVICE)


@dataclass
class StandIn:
    """A Rollout whose status the agent and its controller write, in place of the service's workload."""

    aborted: bool = False
    aborted_at: str = "-"
    step: str = "1w"
    version: int = 1
    writes: list[str] = field(default_factory=list)
    """What the agent changed."""
    sent: int = 0
    """How many requests the agent sent."""
    answers: list[Callable[[StandIn, Callable[[], None]], None]] = field(default_factory=list)
    """What becomes of the next writes, one each; later ones are answered."""

    def state(self) -> TargetState:
        token = "uid-1/generation=1,template=a,paused=false,replicas=3,rest=b"
        parts = {
            ABORTED: str(self.aborted).lower(),
            ABORTED_AT: self.aborted_at,
            STEP: self.step,
        }
        return TargetState(
            ref=REF, uid="uid-1", resource_version=str(self.version), token=with_parts(token, parts)
        )

    def touched(self) -> None:
        """The controller writes a part of the status that no action is about."""
        self.version += 1

    def abort(self, at: str) -> None:
        self.aborted, self.aborted_at = True, at
        self.version += 1

    def progress(self) -> None:
        """No longer aborted, and back where it was, as if nothing had been written."""
        self.aborted, self.aborted_at, self.step = False, "-", "1w"
        self.version += 1

    def write(self, action: Action, target: TargetState) -> None:
        if target.resource_version != str(self.version):
            raise Conflict("it changed since")
        name = action.parameters.get("undoes", action.name.value)
        self.writes.append(str(name))
        self.version += 1
        if name == ActionName.PROMOTE_ROLLOUT.value:
            self.step = "2w"
        else:
            self.aborted = (name == ActionName.ABORT_ROLLOUT.value) is (action.name is not ActionName.RESTORE)
            self.aborted_at = "-"

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        self.sent += 1
        if self.answers:
            self.answers.pop(0)(self, lambda: self.write(action, target))
        else:
            self.write(action, target)
        return self.state()

    async def rehearse(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> Rehearsal:
        return Rehearsal(accepted=True, message="it would be changed")


@dataclass
class Reader:
    """The service's pods as the simulation has them, run by the Rollout."""

    inner: Any
    rollout: StandIn

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        view: WorkloadView | None = await self.inner.workload(key)
        if view is None:
            return None
        one = self.rollout
        progress = RolloutProgress(stable=False, aborted=one.aborted, waits="CanaryPauseStep")
        return replace(view, target=one.state(), progress=progress)

    async def target(self, action: Action) -> TargetState:
        return self.rollout.state()

    async def snapshot(self, action: Action) -> Snapshot:
        return Snapshot(ref=REF, token=self.rollout.state().token, body={"aborted": self.rollout.aborted})

    async def disruption(self, action: Action) -> None:
        return None

    async def opt_out(self, action: Action, key: ServiceKey) -> OptOut:
        return OptOut()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@asynccontextmanager
async def rolling_out(directory: Path, name: ActionName) -> AsyncIterator[tuple[Story, StandIn]]:
    """A bad release that a Rollout runs, and a runbook that answers with this action."""
    rollout = StandIn()
    if name is ActionName.RETRY_ROLLOUT:
        rollout.abort("10:00:00")
    body = {
        "schema": 1,
        "id": "act-on-rollout",
        "version": 1,
        "title": "Change the update of a Rollout",
        "causes": ["bad_release"],
        "min_confidence": 0.5,
        "steps": [{"action": name.value}],
        "examples": [{"cause": "bad_release", "confidence": 0.9, "kind": "Rollout", "selected": True}],
    }
    runbooks = directory / "runbooks"
    runbooks.mkdir()
    (runbooks / "act-on-rollout.yaml").write_text(yaml.safe_dump(body))

    def connected(world: Adapters) -> Adapters:
        return replace(world, reader=Reader(world.reader, rollout), rehearsal=rollout, writer=rollout)

    enabled = frozenset(ActionName) - {ActionName.RESTORE}
    async with story(
        directory,
        connected=connected,
        **ACTING,
        enabled_actions=enabled,
        runbooks_dir=runbooks,
        verify_soak_seconds=20,
        verify_timeout_seconds=60,
    ) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        yield stage, rollout


def _lost(rollout: StandIn, write: Callable[[], None]) -> None:
    raise UnknownOutcome("no answer")


def _answer_lost(rollout: StandIn, write: Callable[[], None]) -> None:
    write()
    raise UnknownOutcome("no answer")


def _lost_beside_another_write(rollout: StandIn, write: Callable[[], None]) -> None:
    rollout.touched()
    raise UnknownOutcome("no answer")


def _reverted(rollout: StandIn, write: Callable[[], None]) -> None:
    """It took effect, and the controller went back to a state that looks as it did before."""
    was = rollout.aborted, rollout.aborted_at, rollout.step
    write()
    rollout.aborted, rollout.aborted_at, rollout.step = was
    rollout.version += 1
    raise UnknownOutcome("no answer")


def _reverted_and_killed(rollout: StandIn, write: Callable[[], None]) -> None:
    try:
        _reverted(rollout, write)
    except UnknownOutcome:
        raise Killed from None


def _killed_before(rollout: StandIn, write: Callable[[], None]) -> None:
    raise Killed


async def _ended(stage: Story) -> IncidentRecord:
    """The incident's end, with another process after each death of one."""
    for _ in range(3):
        try:
            return await stage.live_until(lambda r: any(i.outcome is not None for i in r.intents))
        except Killed:
            await stage.restart(enabled_actions=frozenset(ActionName) - {ActionName.RESTORE})
    raise AssertionError("it dies each time")


RETRY, ABORT, PROMOTE = (ActionName.RETRY_ROLLOUT, ActionName.ABORT_ROLLOUT, ActionName.PROMOTE_ROLLOUT)


@pytest.mark.parametrize(
    ("name", "happens", "outcome", "sent", "writes"),
    [
        (RETRY, _answer_lost, OutcomeKind.DONE, 1, 1),
        (RETRY, _lost, OutcomeKind.DONE, 2, 1),
        (RETRY, _lost_beside_another_write, OutcomeKind.UNKNOWN, 1, 0),
        (RETRY, _reverted, OutcomeKind.UNKNOWN, 1, 1),
        (ABORT, _reverted, OutcomeKind.UNKNOWN, 1, 1),
        (PROMOTE, _reverted, OutcomeKind.UNKNOWN, 1, 1),
        (RETRY, _reverted_and_killed, OutcomeKind.UNKNOWN, 1, 1),
        (ABORT, _killed_before, OutcomeKind.DONE, 2, 1),
    ],
)
async def test_a_status_write_without_an_answer_takes_effect_at_most_once(
    tmp_path: Path, name: ActionName, happens: Any, outcome: OutcomeKind, sent: int, writes: int
) -> None:
    """It is sent again only while nothing was written, so that the API server accepts one of the two."""
    async with rolling_out(tmp_path, name) as (stage, rollout):
        rollout.answers.append(happens)
        record = await _ended(stage)
        intent = record.intents[0]
        assert intent.outcome is not None, messages(record.timeline)
        assert (intent.action.name, intent.outcome.kind) == (name, outcome), messages(record.timeline)
        assert (rollout.sent, rollout.writes.count(name.value)) == (sent, writes)
        if outcome is OutcomeKind.UNKNOWN and name is RETRY:
            record = await stage.live_until_ended()
            assert record.incident.state is IncidentState.ESCALATED
            assert rollout.sent == sent
            assert "carries no annotation" in messages(record.timeline)


async def test_an_update_that_was_aborted_again_is_not_retried_on_the_old_decision(tmp_path: Path) -> None:
    """The abort that was decided on is another one, though the status says aborted both times."""
    async with rolling_out(tmp_path, ActionName.RETRY_ROLLOUT) as (stage, rollout):

        def aborted_again(one: StandIn, write: Callable[[], None]) -> None:
            write()
            one.abort("10:07:00")
            raise UnknownOutcome("no answer")

        rollout.answers.append(aborted_again)
        record = await stage.live_until_ended()
        intent = record.intents[0]
        assert intent.outcome is not None
        assert intent.outcome.kind is OutcomeKind.UNKNOWN
        assert "was changed by" in intent.outcome.message
        assert rollout.writes == [ActionName.RETRY_ROLLOUT.value]


async def test_an_abort_of_another_person_is_not_taken_for_the_agents(tmp_path: Path) -> None:
    """The API server refused the agent's write: it has done nothing that it could undo."""
    async with rolling_out(tmp_path, ActionName.ABORT_ROLLOUT) as (stage, rollout):

        def aborted_by_a_person(one: StandIn, write: Callable[[], None]) -> None:
            one.abort("10:07:00")
            write()

        rollout.answers.append(aborted_by_a_person)
        record = await stage.live_until_ended()
        intent = record.intents[0]
        assert intent.outcome is not None
        assert intent.outcome.kind is OutcomeKind.REFUSED, messages(record.timeline)
        assert "Re-evaluating: Rollout prod/shop was changed by" in messages(record.timeline)
        assert rollout.writes == []


@pytest.mark.parametrize(
    ("happens", "outcome"), [(_answer_lost, OutcomeKind.DONE), (_reverted, OutcomeKind.UNKNOWN)]
)
async def test_an_undo_of_a_status_write_is_sent_once(
    tmp_path: Path, happens: Any, outcome: OutcomeKind
) -> None:
    """The update that the agent aborted, which did not help, begins again once."""
    async with rolling_out(tmp_path, ActionName.ABORT_ROLLOUT) as (stage, rollout):
        await stage.live_until(lambda r: any(i.outcome is not None for i in r.intents))
        rollout.answers.append(happens)
        record = await stage.live_until_ended()
        undo = record.intents[-1]
        assert undo.action.name is ActionName.RESTORE, messages(record.timeline)
        assert undo.outcome is not None
        assert undo.outcome.kind is outcome, messages(record.timeline)
        assert rollout.sent == 2
