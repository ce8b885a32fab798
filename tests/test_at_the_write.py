"""What changes between a decision and its write, or between two attempts of one write, counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from app.agent.guardrails.disruption import Disruption, DisruptionBudget
from app.agent.identity.people import Person
from app.agent.ids import ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Action,
    DecisionKind,
    IncidentState,
    IntentState,
    MetricSample,
    OutcomeKind,
    Signal,
)
from app.agent.ports.cluster import ClusterReader
from app.agent.ports.store import Store
from app.agent.ports.store.history import HistoryRepository
from app.agent.responders.request import ResponderAct, ResponderRequest
from app.agent.workload import ConfigRecord, RevisionHealth, TargetState
from app.bootstrap import Adapters
from app.errors import AgentError, Conflict, Forbidden, NotFound, UnknownOutcome
from tests.stories import (
    ACTING,
    KEY,
    NAMESPACE,
    SERVICE,
    LastLook,
    Story,
    innocent_release_beside_a_dying_dependency,
    messages,
    story,
)
from tests.test_interruptions import Deadly, dies
from tests.test_loop import CART, greeting, innocent_configuration_beside_a_dying_dependency

ANN = Person(name="ann")


@dataclass
class Guarded:
    """A reader that finds a PodDisruptionBudget from its look of that number on."""

    inner: Any
    appears_at: int
    looks: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def disruption(self, action: Action) -> Disruption | None:
        self.looks += 1
        found: Disruption | None = await self.inner.disruption(action)
        if found is None or self.looks < self.appears_at:
            return found
        budget = DisruptionBudget(name="shop-pdb", expected_pods=3, desired_healthy=3)
        return replace(found, budgets=(budget,), serving=3)


@asynccontextmanager
async def guarded(directory: Path, appears_at: int, before: int = 0) -> AsyncIterator[Story]:
    """A bad release of a service whose pods a budget covers from some moment on."""

    def connected(world: Adapters) -> Adapters:
        assert world.writer is not None
        reader = Guarded(world.reader, appears_at)
        return replace(world, reader=reader, writer=Deadly(world.writer, before=before))

    async with story(directory, connected=connected, **ACTING) as stage:
        stage.deploy(max_unavailable=1)
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        yield stage


async def test_a_disruption_budget_that_comes_after_the_decision_holds(tmp_path: Path) -> None:
    """It is read again right before the write: nothing begins."""
    async with guarded(tmp_path, appears_at=2) as stage:
        record = await stage.live_until_ended()
        assert record.intents[0].decision.kind is DecisionKind.ALLOW
        assert all(intent.started_at is None for intent in record.intents)
        assert "PodDisruptionBudget shop-pdb requires 3" in messages(record.timeline)
        assert stage.marker() is None


async def _opts_out(stage: Story) -> None:
    stage.world.namespaces[NAMESPACE] = {"self-healing-devops-agent/enabled": "false"}


async def _nothing(stage: Story) -> None:
    """The budget appears by itself."""


@pytest.mark.parametrize(
    ("appears_at", "happens", "words"),
    [(99, _opts_out, "the target opts out"), (3, _nothing, "PodDisruptionBudget shop-pdb requires 3")],
)
async def test_owners_stop_a_second_attempt(
    tmp_path: Path, appears_at: int, happens: Callable[[Story], Any], words: str
) -> None:
    """The process died before the write; what forbids the action now forbids its repetition."""
    async with guarded(tmp_path, appears_at, before=1) as stage:
        await dies(stage)
        await happens(stage)
        await stage.restart()
        record = await stage.live_until_ended()
        (intent,) = record.intents
        assert intent.outcome is not None
        assert (intent.outcome.kind, intent.attempts) == (OutcomeKind.UNKNOWN, 1)
        assert words in record.incident.summary
        assert stage.marker() is None


async def _act(stage: Story, act: ResponderAct) -> None:
    record = await stage.newest()
    assert record is not None
    request = ResponderRequest(act=act, by=ANN, at=stage.clock.now(), text="the queue was stuck")
    await stage.agent.store.responders.respond(record.incident.id, request)


async def test_a_summary_by_hand_claims_nothing_that_was_not_read(tmp_path: Path) -> None:
    """A person releases over the agent's rollback and resolves: it is not said to be in place."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        await innocent_release_beside_a_dying_dependency(stage)
        await stage.live_until(lambda record: record.incident.state is IncidentState.VERIFYING)
        await _act(stage, ResponderAct.TAKE_OVER)
        stage.world.release(NAMESPACE, SERVICE, "shop:3")
        await _act(stage, ResponderAct.RESOLVE)
        record = await stage.newest()
        assert record is not None
        assert "Still in place" not in record.incident.summary
        assert "Unknown whether rollback of Deployment prod/shop is still in place." in (
            record.incident.summary
        )


async def test_a_plan_from_before_a_take_over_is_made_again(tmp_path: Path) -> None:
    """Handed back within seconds: what the person did is not in the old diagnosis."""
    async with story(tmp_path, **ACTING, approval_for_risks=["high"]) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        asked = await stage.live_until_asked()
        await _act(stage, ResponderAct.TAKE_OVER)
        await _act(stage, ResponderAct.HAND_BACK)
        again = await stage.live_until_asked()
        record = await stage.newest()
        assert record is not None
        assert messages(record.timeline).count("diagnose: Most likely") == 2, messages(record.timeline)
        assert again.id != asked.id


async def test_a_recovery_under_a_persons_hands_is_not_credited(tmp_path: Path) -> None:
    """The person repaired a dependency between the agent's rollback and its verdict."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        await innocent_release_beside_a_dying_dependency(stage)
        await stage.live_until(lambda record: record.incident.state is IncidentState.VERIFYING)
        await stage.live(15)
        await _act(stage, ResponderAct.TAKE_OVER)
        stage.world.set_replicas(NAMESPACE, "db", 3)
        await stage.live(60)
        await _act(stage, ResponderAct.HAND_BACK)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert "unknown whether rollback of Deployment prod/shop helped" in record.incident.summary
        assert "ann has handled the incident since" in record.incident.summary
        assert record.incident.lesson is not None
        assert record.incident.lesson.worked is False
        revisions = await stage.agent.store.history.revisions(KEY)
        assert RevisionHealth.FAILED not in {one.health for one in revisions}


@asynccontextmanager
async def dies_after_the_rollback(directory: Path) -> AsyncIterator[Story]:
    """The process is killed over a rollback that happened and will not help: nothing is recorded of it."""

    def connected(world: Adapters) -> Adapters:
        assert world.writer is not None
        return replace(world, writer=Deadly(world.writer, after=1))

    async with story(directory, connected=connected, **ACTING) as stage:
        stage.deploy()
        await innocent_release_beside_a_dying_dependency(stage)
        await dies(stage)
        await stage.clock.advance(5)
        yield stage


async def test_a_person_who_takes_over_a_write_under_way_is_not_left_out(tmp_path: Path) -> None:
    """The outcome is recorded only after the person repaired the dependency: the agent takes no credit."""
    async with dies_after_the_rollback(tmp_path) as stage:
        await _act(stage, ResponderAct.TAKE_OVER)
        stage.world.set_replicas(NAMESPACE, "db", 3)
        await stage.restart()
        await stage.live(60)
        await _act(stage, ResponderAct.HAND_BACK)
        record = await stage.live_until_ended()
        assert "ann has handled the incident since" in record.incident.summary, record.incident.summary
        assert record.incident.lesson is not None
        assert record.incident.lesson.worked is False
        revisions = await stage.agent.store.history.revisions(KEY)
        assert RevisionHealth.FAILED not in {one.health for one in revisions}


async def test_an_incident_resolved_over_a_write_under_way_says_so(tmp_path: Path) -> None:
    """The rollback did happen: the summary does not pass over it."""
    async with dies_after_the_rollback(tmp_path) as stage:
        await _act(stage, ResponderAct.RESOLVE)
        record = await stage.newest()
        assert record is not None
        assert "Rollback was under way: check whether it took effect." in record.incident.summary


@pytest.mark.parametrize("known", [IntentState.EXECUTING, IntentState.DECIDED])
async def test_an_end_that_does_not_wait_for_a_write_says_so(tmp_path: Path, known: IntentState) -> None:
    """The effect of the rollback is not known, also where the stage began with a decided intent."""
    async with dies_after_the_rollback(tmp_path) as stage:
        record = await stage.newest()
        assert record is not None
        record = replace(record, intents=tuple(replace(one, state=known) for one in record.intents))
        loop = stage.agent.loop
        claim = await stage.agent.store.claims.take(
            record.incident.id, loop.owner, loop.lease, stage.clock.now() + timedelta(hours=1)
        )
        assert claim is not None
        await loop.stages.closer.stop_at(record, claim, "reconcile", AgentError("interrupted"))
        ended = await stage.load(record.incident.id)
        assert "Unknown whether rollback of Deployment prod/shop took effect." in ended.incident.summary
        (intent,) = ended.intents
        assert intent.outcome is not None
        assert intent.outcome.kind is OutcomeKind.UNKNOWN


@dataclass
class Unheard:
    """A writer whose first write is answered by an error; with `sent` it has taken effect."""

    inner: Any
    error: AgentError
    sent: bool
    answered: bool = False

    async def apply(self, *write: Any) -> TargetState:
        if self.sent and not self.answered:
            await self.inner.apply(*write)
        self.answered = True
        raise self.error


@dataclass
class Unreadable:
    """A reader that has lost the right to one read since the write was answered."""

    inner: Any
    writer: Unheard
    read: str
    error: AgentError

    def __getattr__(self, name: str) -> Any:
        if name == self.read and self.writer.answered:
            return self._refuse
        return getattr(self.inner, name)

    async def _refuse(self, *_: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("answer", "sent", "read", "error", "kind", "words"),
    [
        (
            UnknownOutcome("no answer"),
            True,
            "target",
            Forbidden("cannot get it"),
            OutcomeKind.UNKNOWN,
            "the object cannot be read: cannot get it",
        ),
        (
            Conflict("it carries the intent already"),
            True,
            "target",
            NotFound("it is gone"),
            OutcomeKind.UNKNOWN,
            "the object cannot be read: it is gone",
        ),
        (
            Conflict("it was written meanwhile"),
            False,
            "opt_out",
            Forbidden("cannot get namespaces"),
            OutcomeKind.REFUSED,
            "not sent: whether it is still allowed cannot be read: cannot get namespaces",
        ),
    ],
)
async def test_what_cannot_be_read_after_a_write_is_not_claimed(
    tmp_path: Path,
    answer: AgentError,
    sent: bool,
    read: str,
    error: AgentError,
    kind: OutcomeKind,
    words: str,
) -> None:
    """Refused is said only of a write that the object shows to have had no effect."""

    def connected(world: Adapters) -> Adapters:
        writer = Unheard(world.writer, answer, sent)
        reader = cast("ClusterReader", Unreadable(world.reader, writer, read, error))
        return replace(world, reader=reader, writer=writer)

    async with story(tmp_path, connected=connected, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until(lambda r: any(i.outcome is not None for i in r.intents))
        intent = record.intents[0]
        assert intent.outcome is not None
        assert (intent.outcome.kind, intent.started_at is not None) == (kind, True), messages(record.timeline)
        assert words in intent.outcome.message
        assert (stage.marker() == intent.id) is sent


async def test_autonomy_that_is_taken_away_during_the_last_look_holds(tmp_path: Path) -> None:
    """The look at the service before the write takes its time; the services file changes meanwhile."""
    file, stages = tmp_path / "services.yaml", list[Story]()

    def write(autonomy: str) -> None:
        file.write_text(f"schema: 1\nservices:\n  prod/shop: {{autonomy: {autonomy}}}\n")

    def narrow() -> None:
        write("observe")
        services = stages[0].agent.services
        assert services is not None
        services.reload()

    write("act")

    def connected(world: Adapters) -> Adapters:
        return replace(world, reader=cast("ClusterReader", LastLook(world.reader, narrow)))

    async with story(tmp_path, connected=connected, services_file=file, **ACTING) as stage:
        stages.append(stage)
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.intents[0].decision.kind is DecisionKind.ALLOW
        assert all(intent.started_at is None for intent in record.intents), messages(record.timeline)
        assert "the autonomy of shop is observe" in messages(record.timeline)
        assert stage.marker() is None


async def test_what_was_withdrawn_before_the_clock_went_back_is_no_reason(tmp_path: Path) -> None:
    """Set aside as dated in the future, it is not read from the signals again."""
    async with story(tmp_path, **ACTING, evidence_max_age_seconds=900) as stage:
        ahead = stage.clock.now() + timedelta(minutes=8)
        for seconds, rate in ((0, 0.4), (20, 0.4), (40, 0.4), (45, 0.001)):
            when = ahead + timedelta(seconds=seconds)
            await stage.agent.intake.accept([_sample(rate, when)])
        record = await stage.newest()
        assert record is not None
        await stage.agent.intake.accept([_sample(None, stage.clock.now())])
        levels = await stage.agent.store.signals.levels(KEY)
        assert levels is not None
        assert levels.reasons == ()
        examination = await stage.agent.loop.stages.check.examine(record.incident)
        assert examination.reasons.standing() == ()


def _sample(error_rate: float | None, at: datetime) -> Signal:
    return new_signal(
        key=KEY,
        source="http",
        observed_at=at,
        received_at=at,
        payload=MetricSample(error_rate=error_rate, p95_latency_ms=80.0),
        stale_after=timedelta.max,
    )


@dataclass
class Forgetting:
    """A history of configuration that is pruned at some moment."""

    inner: Any
    forgotten: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def configs(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        found: tuple[ConfigRecord, ...] = () if self.forgotten else await self.inner.configs(key)
        return found

    def forget(self) -> None:
        self.forgotten = True


async def test_a_revert_whose_kept_content_is_gone_before_the_send_is_not_sent(tmp_path: Path) -> None:
    """The retention removes it between the decision and the write: the record says what is missing."""
    history = list[Forgetting]()

    def shaken(store: Store) -> Store:
        history.append(Forgetting(store.history))
        return replace(store, history=cast("HistoryRepository", history[0]))

    def connected(world: Adapters) -> Adapters:
        return replace(world, reader=cast("ClusterReader", LastLook(world.reader, history[0].forget)))

    async with story(tmp_path, connected=connected, shaken_store=shaken, **ACTING) as stage:
        await innocent_configuration_beside_a_dying_dependency(stage)
        record = await stage.live_until_ended(key=CART)
        assert history[0].forgotten
        assert greeting(stage) == "hi"
        assert [i.outcome.kind for i in record.intents if i.outcome] == [OutcomeKind.REFUSED]
        assert "is no longer in the agent's history" in messages(record.timeline)
