"""The promises of the loop, as short scenarios on the simulated cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from app.agent.ids import IntentId, JsonObject, ServiceKey
from app.agent.models import (
    Action,
    ActionName,
    Cause,
    DecisionKind,
    Deploy,
    DeployStatus,
    DispositionKind,
    IncidentState,
    MetricSample,
    OutcomeKind,
    Snapshot,
    Stage,
    Trigger,
    VerdictKind,
)
from app.agent.notes import why_escalated
from app.agent.ports.cluster import ClusterWriter
from app.agent.ports.policy import PolicyAnswer
from app.agent.timeline import verify_chain
from app.agent.workload import RevisionHealth, TargetState, WorkloadView
from app.bootstrap import Adapters
from app.errors import Forbidden, TransientError, UnknownOutcome
from app.sandbox.objects import ConfigMap, Pod, Template
from app.sandbox.world import PIPELINE
from app.web.story import commands
from tests.stories import (
    ACTING,
    KEY,
    NAMESPACE,
    SERVICE,
    Listener,
    Story,
    innocent_release_beside_a_dying_dependency,
    messages,
    story,
)

CART = structs.replace(KEY, service="cart")


@pytest.fixture
async def acting(tmp_path: Path) -> AsyncIterator[Story]:
    """An agent that may act, beside a service that has served well for a while."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        yield stage


@pytest.fixture
async def dry(tmp_path: Path) -> AsyncIterator[Story]:
    """The agent as it comes: dry run, no high-risk actions."""
    async with story(tmp_path) as stage:
        stage.deploy()
        await stage.live(180)
        yield stage


async def test_a_release_that_crashes_is_rolled_back_and_verified(acting: Story) -> None:
    """The whole loop: seen by the watcher, diagnosed, rolled back, verified over a soak, remembered."""
    acting.world.release(NAMESPACE, SERVICE, "shop:2-crash")
    record = await acting.live_until_ended()
    incident = record.incident
    assert incident.state is IncidentState.RECOVERED
    assert incident.diagnosis is not None
    assert incident.diagnosis.best.cause is Cause.BAD_RELEASE
    assert [i.action.name for i in record.intents] == [ActionName.ROLLBACK]
    assert record.intents[0].outcome is not None
    assert record.intents[0].outcome.kind is OutcomeKind.DONE
    assert acting.image() == "shop:1"
    assert incident.verdict is not None
    assert incident.verdict.kind is VerdictKind.RECOVERED
    assert incident.lesson is not None
    assert incident.lesson.worked is True
    stages = list(dict.fromkeys(e.stage for e in record.timeline))
    assert stages == [
        Stage.OBSERVE,
        Stage.DIAGNOSE,
        Stage.PLAN,
        Stage.POLICY,
        Stage.EXECUTE,
        Stage.VERIFY,
        Stage.LEARN,
    ]
    assert verify_chain(incident.id, record.timeline)


async def test_a_release_with_errors_is_rolled_back(acting: Story) -> None:
    """Nothing crashes; the error rate alone, sustained, opens the incident."""
    acting.world.release(NAMESPACE, SERVICE, "shop:2-errors")
    record = await acting.live_until_ended()
    assert Trigger.HIGH_ERROR_RATE in record.incident.triggers
    assert record.incident.state is IncidentState.RECOVERED
    assert acting.image() == "shop:1"


async def test_a_slow_release_is_rolled_back(acting: Story) -> None:
    """Latency alone, sustained, opens the incident."""
    acting.world.release(NAMESPACE, SERVICE, "shop:2-slow")
    record = await acting.live_until_ended()
    assert Trigger.HIGH_LATENCY in record.incident.triggers
    assert record.incident.state is IncidentState.RECOVERED
    assert acting.image() == "shop:1"


async def test_a_config_map_that_broke_the_service_is_put_back(acting: Story) -> None:
    """Same code, new configuration: the content that served well is restored, the release is left alone."""
    acting.world.put_config_map(NAMESPACE, "shop-config", {"FAIL_RATIO": "0"})
    acting.deploy(
        "cart",
        "cart:1",
        template=Template(image="cart:1", config_maps=("shop-config",), memory_limit="256Mi"),
    )
    await acting.live(180)
    acting.world.put_config_map(NAMESPACE, "shop-config", {"FAIL_RATIO": "0.9"})
    record = await acting.live_until_ended(key=CART)
    assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
    assert [i.action.name for i in record.intents] == [ActionName.REVERT_CONFIG]
    assert acting.image("cart") == "cart:1"


async def test_a_dry_run_proposes_and_changes_nothing(dry: Story) -> None:
    """Promise 5: the API server is asked, nothing is written, and the incident ends as proposed."""
    dry.world.release(NAMESPACE, SERVICE, "shop:2-crash")
    before = dry.versions()
    record = await dry.live_until_ended()
    assert record.incident.state is IncidentState.PROPOSED
    (intent,) = record.intents
    assert intent.dry_run
    assert intent.rehearsal is not None
    assert intent.rehearsal.accepted
    assert intent.outcome is not None
    assert intent.outcome.kind is OutcomeKind.REHEARSED
    assert intent.decision.kind is DecisionKind.DENY
    assert any("ALLOW_HIGH_RISK_ACTIONS" in reason for reason in intent.decision.reasons)
    assert "dryRun=All" in messages(record.timeline)
    assert dry.versions() == before
    assert dry.marker() is None
    assert dry.agent.world.writer is None


async def test_a_dry_run_notices_that_the_service_recovered_by_itself(dry: Story) -> None:
    """A person rolled back meanwhile: the incident ends as recovered without action."""
    dry.world.release(NAMESPACE, SERVICE, "shop:2-crash")
    await dry.live(60)
    dry.world.release(NAMESPACE, SERVICE, "shop:1")
    record = await dry.live_until_ended()
    assert record.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION
    assert record.incident.lesson is not None
    assert record.incident.lesson.recovered_alone


async def test_without_high_risk_a_rollback_is_denied_and_escalated(tmp_path: Path) -> None:
    """Promise 6."""
    async with story(tmp_path, dry_run=False) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert [i.decision.kind for i in record.intents] == [DecisionKind.DENY]
        assert stage.image() == "shop:2-crash"
        assert "ALLOW_HIGH_RISK_ACTIONS" in record.incident.summary


async def test_a_rollback_that_does_not_help_is_undone_and_escalated(acting: Story) -> None:
    """Promise 10: the sickness lies elsewhere, so the agent takes its own change back, and proves it."""
    await innocent_release_beside_a_dying_dependency(acting)
    record = await acting.live_until_ended()
    assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)
    assert [i.action.name for i in record.intents] == [ActionName.ROLLBACK, ActionName.RESTORE]
    assert record.intents[1].undoes == record.intents[0].id
    assert acting.image() == "shop:2"
    assert "Undo verified" in messages(record.timeline)
    assert record.incident.lesson is not None
    assert record.incident.lesson.worked is False
    # Re-evaluation clears the verdict; what took place stays recorded as such.
    looked_anew = replace(record, incident=replace(record.incident, verdict=None))
    assert "did not help" in why_escalated(looked_anew)
    # The person who takes over finds the workload, on the page and from the timeline.
    assert commands(record)[0] == f"kubectl -n {NAMESPACE} describe deployment {SERVICE}"


async def test_an_undo_is_refused_when_someone_else_changed_the_object(acting: Story) -> None:
    """Promise 10: another person's change is not overwritten, and the timeline says whose it was."""
    await innocent_release_beside_a_dying_dependency(acting)
    await acting.live_until(lambda r: r.incident.state is IncidentState.VERIFYING)
    await acting.live_to_the_last_look()
    acting.world.set_env(NAMESPACE, SERVICE, {"DEPENDENCY_URL": "http://db", "TRACE": "1"})
    record = await acting.live_until_ended()
    assert record.incident.state is IncidentState.ESCALATED
    assert ActionName.RESTORE not in [i.action.name for i in record.intents]
    assert f"Not undone: Deployment prod/shop was changed since by {PIPELINE}" in messages(record.timeline)


async def test_a_stale_signal_opens_an_incident_and_never_acts(acting: Story) -> None:
    """Old timestamps open an incident that is marked stale; nothing real follows from it."""
    accepted = await acting.tell(Deploy(version="9", status=DeployStatus.FAILED), age_seconds=30 * 86400)
    assert accepted.disposition.kind is DispositionKind.OPENED
    before = acting.versions()
    report = await acting.agent.loop.run_once(SERVICE, NAMESPACE)
    (passed,) = report.passes
    assert passed.record.incident.stale
    await acting.live(30)
    assert acting.versions() == before
    assert acting.marker() is None


async def test_one_high_sample_opens_nothing_and_a_sustained_breach_does(dry: Story) -> None:
    """For-duration: the first sample waits, the one that completes the duration opens, and both are kept."""
    first = await dry.tell(MetricSample(error_rate=0.4))
    assert first.disposition.kind is DispositionKind.PENDING
    await dry.clock.advance(31)
    second = await dry.tell(MetricSample(error_rate=0.4))
    assert second.disposition.kind is DispositionKind.OPENED
    kept = await dry.agent.store.signals.get(first.signal_id)
    assert kept is not None
    assert kept.disposition.kind is DispositionKind.JOINED


async def test_a_crash_loop_reported_once_opens_at_once(dry: Story) -> None:
    """A sample that says crash loop needs no duration."""
    accepted = await dry.tell(MetricSample(crash_looping=True))
    assert accepted.disposition.kind is DispositionKind.OPENED


async def test_run_once_judges_a_breach_that_is_not_sustained_yet(dry: Story) -> None:
    """run-once does not wait for a for-duration."""
    await dry.tell(MetricSample(error_rate=0.4))
    report = await dry.agent.loop.run_once(SERVICE, None)
    (passed,) = report.passes
    assert passed.record.incident.triggers == (Trigger.HIGH_ERROR_RATE,)


async def test_an_unhealed_service_does_not_reopen_for_ever(tmp_path: Path) -> None:
    """The same symptoms after an escalation are ignored for a while, with the reason."""
    async with story(tmp_path, dry_run=False) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        ended = await stage.live_until_ended()
        again = await stage.tell(MetricSample(crash_looping=True))
        assert again.disposition.kind is DispositionKind.IGNORED
        assert ended.incident.id in again.disposition.reason


async def test_many_series_vanishing_together_heal_nothing(acting: Story) -> None:
    """Promise 8: a telemetry outage is no sickness; no service is touched."""
    for name in ("cart", "search", "mail"):
        acting.deploy(name, f"{name}:1")
    await acting.live(700)
    before = acting.versions()
    acting.world.lose_telemetry()
    await acting.tell(MetricSample(crash_looping=None, error_rate=0.0, p95_latency_ms=0.0))
    await acting.live(300)
    assert acting.versions() == before


async def test_recovery_without_fresh_data_is_never_claimed(acting: Story) -> None:
    """Promise 8: the metrics vanish after the rollback, so the verdict is cannot tell."""
    acting.world.release(NAMESPACE, SERVICE, "shop:2-errors")
    while acting.image() != "shop:1":
        await acting.live(5)
    acting.world.lose_telemetry()
    record = await acting.live_until_ended()
    assert record.incident.state is IncidentState.ESCALATED
    assert record.incident.verdict is not None
    assert record.incident.verdict.kind is VerdictKind.CANNOT_TELL


async def test_a_service_account_without_rights_is_said_and_escalated(tmp_path: Path) -> None:
    """Forbidden stands in the timeline, nothing is written, a person is asked."""

    class WithoutRights:
        async def apply(
            self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
        ) -> TargetState:
            raise Forbidden("patch deployments is forbidden for agent")

    async with story(
        tmp_path, connected=lambda world: replace(world, writer=WithoutRights()), **ACTING
    ) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert "forbidden" in messages(record.timeline)


@dataclass
class LosesAnswers:
    """A writer whose first answer never arrives: the write happened, the answer was lost."""

    inner: ClusterWriter
    applied: list[IntentId] = field(default_factory=list)

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        after = await self.inner.apply(action, intent_id, target, snapshot)
        self.applied.append(intent_id)
        if len(self.applied) == 1:
            raise UnknownOutcome("the connection broke")
        return after


async def test_a_write_whose_answer_was_lost_is_adopted_not_repeated(tmp_path: Path) -> None:
    """Promise 2: the object's mark shows that the effect took place."""
    writers: list[LosesAnswers] = []

    def lossy(world: Adapters) -> Adapters:
        assert world.writer is not None
        writers.append(LosesAnswers(world.writer))
        return replace(world, writer=writers[0])

    async with story(tmp_path, connected=lossy, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED
        assert len(writers[0].applied) == 1


async def test_the_budget_of_actions_holds(tmp_path: Path) -> None:
    """Promise 4: with a budget of none, nothing is done."""
    async with story(tmp_path, max_actions_per_incident=0, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert stage.image() == "shop:2-crash"
        assert "MAX_ACTIONS_PER_INCIDENT" in record.incident.summary


@dataclass
class MeddlingPerson:
    """A policy engine that allows; while it is being asked, a person fixes the service by hand."""

    meddle: Callable[[], None]

    async def decide(self, document: JsonObject) -> PolicyAnswer:
        self.meddle()
        return PolicyAnswer(kind=DecisionKind.ALLOW, reasons=("allowed",))


async def test_a_change_between_decision_and_write_is_decided_again(tmp_path: Path) -> None:
    """Promise 1: the decision is bound to the state it saw; a person's fix in between is left alone."""
    stages: list[Story] = []

    def mend() -> None:
        stages[0].world.release(NAMESPACE, SERVICE, "shop:3")

    async with story(
        tmp_path, connected=lambda world: replace(world, policy_engine=MeddlingPerson(mend)), **ACTING
    ) as stage:
        stages.append(stage)
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION, messages(record.timeline)
        assert [i.outcome.kind for i in record.intents if i.outcome] == [OutcomeKind.REFUSED]
        assert stage.image() == "shop:3"
        assert stage.marker() is None


@pytest.mark.parametrize("deaf", [False, True], ids=["reached", "not reached"])
async def test_an_escalation_notifies_people_and_ends_even_without_a_listener(
    tmp_path: Path, deaf: bool
) -> None:
    """What could not be done is said to a person; whether that worked stands in the timeline."""
    people = Listener(deaf=deaf)
    async with story(
        tmp_path, connected=lambda world: replace(world, notifier=people), dry_run=False
    ) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert len(people.told) == (0 if deaf else 1)
        assert ("Notification failed" if deaf else "Notification queued") in messages(record.timeline)


@pytest.mark.parametrize(
    ("people", "expected"),
    [(Listener(), OutcomeKind.DONE), (Listener(deaf=True), OutcomeKind.FAILED), (None, OutcomeKind.REFUSED)],
    ids=["notified", "not reached", "no channel configured"],
)
async def test_a_runbook_may_notify_people(
    tmp_path: Path, people: Listener | None, expected: OutcomeKind
) -> None:
    """Notify is an action like any other: decided, made durable, at most once, its outcome recorded."""
    runbooks = tmp_path / "runbooks"
    runbooks.mkdir()
    (runbooks / "tell.yaml").write_text(
        "schema: 1\nid: tell\nversion: 1\ntitle: Tell people\ncauses: [bad_release]\n"
        "min_confidence: 0.6\nsteps:\n  - action: notify\n    parameters:\n      message: look\n"
    )
    async with story(
        tmp_path,
        connected=lambda world: replace(world, notifier=people),
        dry_run=False,
        runbooks_dir=runbooks,
    ) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert [i.outcome.kind for i in record.intents if i.outcome] == [expected], messages(record.timeline)


@dataclass
class Unreachable:
    """A reader or rehearsal that cannot be asked while `down`; otherwise the real one."""

    inner: Any
    methods: tuple[str, ...]
    down: bool = False

    def __getattr__(self, name: str) -> Any:
        if not (self.down and name in self.methods):
            return getattr(self.inner, name)

        async def refuse(*arguments: Any, **named: Any) -> Any:
            raise TransientError("the API server does not answer")

        return refuse


async def test_a_plan_is_void_once_the_object_it_was_made_for_has_changed(tmp_path: Path) -> None:
    """Promise 1: diagnosed on revision 2; a person releases 3 before it is decided: 3 is left alone."""
    parts: list[Unreachable] = []

    def flaky(world: Adapters) -> Adapters:
        parts.append(Unreachable(world.reader, ("target",)))
        return replace(world, reader=parts[0])

    async with story(tmp_path, connected=flaky, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        parts[0].down = True
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        await stage.live(40)
        record = await stage.newest()
        assert record is not None
        assert record.incident.plan is not None
        stage.world.release(NAMESPACE, SERVICE, "shop:3")
        parts[0].down = False
        ended = await stage.live_until_ended()
        assert stage.image() == "shop:3", messages(ended.timeline)
        assert stage.marker() is None


async def test_a_decision_that_could_not_be_carried_out_for_long_is_not_carried_out_late(
    tmp_path: Path,
) -> None:
    """Promise 1: a reason of an hour ago is judged again; the service has recovered meanwhile."""
    parts: list[Unreachable] = []

    def flaky(world: Adapters) -> Adapters:
        parts.append(Unreachable(world.reader, ("snapshot",)))
        return replace(world, reader=parts[0])

    async with story(tmp_path, connected=flaky, verify_timeout_seconds=7200, **ACTING) as stage:
        stage.deploy("db", "db:1")
        stage.deploy()
        stage.world.set_env(NAMESPACE, SERVICE, {"DEPENDENCY_URL": "http://db"})
        await stage.live(240)
        parts[0].down = True
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(10)
        stage.world.set_replicas(NAMESPACE, "db", 0)
        record = await stage.newest()
        while record is None or not record.intents:
            await stage.live(5)
            record = await stage.newest()
        stage.world.set_replicas(NAMESPACE, "db", 3)
        await stage.live(600)
        parts[0].down = False
        ended = await stage.live_until_ended()
        assert ended.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION, messages(ended.timeline)
        assert stage.image() == "shop:2"


async def test_a_step_that_never_succeeds_is_said_and_given_to_a_person(tmp_path: Path) -> None:
    """An incident does not stay open in silence: one note, longer and longer waits, then escalated."""

    def broken(world: Adapters) -> Adapters:
        return replace(world, rehearsal=Unreachable(world.rehearsal, ("rehearse",), down=True))

    async with story(tmp_path, connected=broken, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert messages(record.timeline).count("Retrying") == 1
        assert "does not answer" in record.incident.summary


async def test_a_sample_from_the_future_does_not_blind_the_agent(dry: Story) -> None:
    """A clock that runs ahead neither vouches for later health nor makes true samples late."""
    await dry.tell(MetricSample(error_rate=0.0), age_seconds=-290)
    first = await dry.tell(MetricSample(error_rate=0.5))
    assert first.disposition.kind is DispositionKind.PENDING
    await dry.clock.advance(31)
    second = await dry.tell(MetricSample(error_rate=0.5))
    assert second.disposition.kind is DispositionKind.OPENED


async def test_a_soak_without_observation_proves_nothing(acting: Story) -> None:
    """Promise 8: the agent was away between two healthy looks, so the soak starts again."""
    acting.world.release(NAMESPACE, SERVICE, "shop:2-crash")
    record = await acting.newest()
    while record is None or (v := record.incident.verification) is None or v.healthy_since is None:
        await acting.live(5)
        record = await acting.newest()
    await acting.clock.advance(900)
    await acting.live(5)
    after = await acting.load(record.incident.id)
    assert not after.incident.state.closed
    assert (await acting.live_until_ended()).incident.state is IncidentState.RECOVERED


async def test_a_revision_that_a_person_left_is_not_branded(acting: Story) -> None:
    """A release by a person during the soak: the revision the agent went back to did not fail."""
    acting.world.release(NAMESPACE, SERVICE, "shop:2-crash")
    while acting.image() != "shop:1":
        await acting.live(5)
    await acting.live(15)
    acting.world.release(NAMESPACE, SERVICE, "shop:3")
    await acting.live_until_ended()
    healths = {r.template_hash: r.health for r in await acting.agent.store.history.revisions(KEY)}
    (deployment,) = acting.world.deployments(NAMESPACE, SERVICE)
    good = Template(image="shop:1", memory_limit="256Mi").hash_of("code", "config")
    assert deployment.template.image == "shop:3"
    assert healths[good] is RevisionHealth.SERVED_WELL


async def test_what_was_done_in_part_is_judged_and_undone(tmp_path: Path) -> None:
    """Promise 10: the first half of a plan is not left behind when the second is denied."""
    runbooks = tmp_path / "runbooks"
    runbooks.mkdir()
    (runbooks / "two.yaml").write_text(
        "schema: 1\nid: two\nversion: 1\ntitle: Two steps\ncauses: [bad_release]\nmin_confidence: 0.6\n"
        "steps:\n  - action: rollback\n    parameters:\n      to: previous_healthy\n"
        "  - action: notify\n    parameters:\n      message: look\n"
    )
    async with story(tmp_path, runbooks_dir=runbooks, enabled_actions={"rollback"}, **ACTING) as stage:
        stage.deploy()
        await innocent_release_beside_a_dying_dependency(stage)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert [i.action.name for i in record.intents][:2] == [ActionName.ROLLBACK, ActionName.RESTORE]
        assert stage.image() == "shop:2"


@dataclass
class ReadAtStart:
    """A reader that says of every ConfigMap that containers take it in as they start."""

    inner: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        seen: WorkloadView | None = await self.inner.workload(key)
        if seen is None:
            return None
        maps = tuple(replace(one, read_at_start=True) for one in seen.config_maps)
        return replace(seen, config_maps=maps)


async def innocent_configuration_beside_a_dying_dependency(stage: Story) -> None:
    """Cart's greeting changes, and the database it calls goes away: no configuration will help."""
    stage.deploy("db", "db:1")
    settings = {"DEPENDENCY_URL": "http://db", "GREETING": "hello"}
    stage.world.put_config_map(NAMESPACE, "cart-config", settings)
    stage.deploy(
        "cart",
        "cart:1",
        template=Template(image="cart:1", config_maps=("cart-config",), memory_limit="256Mi"),
    )
    await stage.live(240)
    stage.world.put_config_map(NAMESPACE, "cart-config", {**settings, "GREETING": "hi"})
    await stage.live(10)
    stage.world.set_replicas(NAMESPACE, "db", 0)


def greeting(stage: Story) -> str:
    return stage.world.api.get(ConfigMap, NAMESPACE, "cart-config").data["GREETING"]


async def test_undoing_a_configuration_read_at_start_restarts_the_pods_again(tmp_path: Path) -> None:
    """Promise 10: the content is put back first, then the pods are replaced, so that they run on it."""
    async with story(
        tmp_path,
        connected=lambda world: replace(world, reader=ReadAtStart(world.reader)),
        max_actions_per_incident=3,
        **ACTING,
    ) as stage:
        await innocent_configuration_beside_a_dying_dependency(stage)
        record = await stage.live_until_ended(key=CART)
        assert [i.action.name for i in record.intents] == [
            ActionName.REVERT_CONFIG,
            ActionName.RESTART,
            ActionName.RESTORE,
            ActionName.RESTORE,
        ], messages(record.timeline)
        reverted, restarted, content, pods = record.intents
        assert (content.undoes, pods.undoes) == (reverted.id, restarted.id)
        assert greeting(stage) == "hi"
        story_told = messages(record.timeline)
        assert (
            "Undo of revert config: ConfigMap prod/cart-config has its previous specification" in story_told
        )
        assert "Replacing the pods of Deployment prod/cart again" in story_told
        assert "3 of 3 replicas are available (3 before)" in story_told
        assert story_told.count("Undo verified") == 1
        assert content.outcome is not None
        await stage.live(60)
        pods_now = [pod for pod in stage.world.api.list(Pod, NAMESPACE) if pod.template.image == "cart:1"]
        assert len(pods_now) == 3
        assert all(pod.meta.created_at >= content.outcome.at for pod in pods_now)
        assert record.incident.state is IncidentState.ESCALATED


async def test_what_a_person_changed_since_is_not_restarted_either(tmp_path: Path) -> None:
    """The content was edited by a person: neither is it put back nor are their pods replaced."""
    async with story(
        tmp_path,
        connected=lambda world: replace(world, reader=ReadAtStart(world.reader)),
        max_actions_per_incident=3,
        **ACTING,
    ) as stage:
        await innocent_configuration_beside_a_dying_dependency(stage)
        await stage.live_until(lambda r: r.incident.state is IncidentState.VERIFYING, key=CART)
        await stage.live_to_the_last_look(key=CART)
        settings = {"DEPENDENCY_URL": "http://db", "GREETING": "good day"}
        stage.world.put_config_map(NAMESPACE, "cart-config", settings)
        record = await stage.live_until_ended(key=CART)
        assert [i.action.name for i in record.intents] == [ActionName.REVERT_CONFIG, ActionName.RESTART]
        assert f"Not undone: ConfigMap prod/cart-config was changed since by {PIPELINE}" in messages(
            record.timeline
        )
        assert greeting(stage) == "good day"
