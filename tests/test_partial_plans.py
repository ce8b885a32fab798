"""Whatever stops a plan after an action took place, that action is verified and undone (promise 10).

A verdict on an earlier step says nothing about a later one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent.ids import IntentId
from app.agent.models import (
    Action,
    ActionName,
    ApprovalState,
    IncidentRecord,
    IncidentState,
    SliSample,
    Snapshot,
    VerdictKind,
)
from app.agent.workload import TargetState
from app.errors import Forbidden, PermanentError
from app.sandbox.world import PIPELINE
from tests.stories import (
    ACTING,
    NAMESPACE,
    SERVICE,
    Listener,
    Story,
    innocent_release_beside_a_dying_dependency,
    messages,
    story,
)
from tests.test_loop import CART, ReadAtStart, greeting, innocent_configuration_beside_a_dying_dependency
from tests.test_reasons import fire, innocent, resolve

REVERT = """  - action: revert_config
    parameters:
      to: last_served_well
  - action: restart
    parameters:
      when: config_read_at_start
"""
SCALE = "  - action: scale\n    parameters:\n      by: 1\n"


def runbook(folder: Path, steps: str, causes: str = "bad_config, resource_limit") -> Path:
    """A folder with one runbook of these steps."""
    found = folder / "runbooks"
    found.mkdir()
    head = f"schema: 1\nid: steps\nversion: 1\ntitle: t\ncauses: [{causes}]\nmin_confidence: 0.5\nsteps:\n"
    (found / "steps.yaml").write_text(head + steps)
    return found


@asynccontextmanager
async def useless_configuration(folder: Path, steps: str, **settings: Any) -> AsyncIterator[Story]:
    """The dependency of cart is gone; the runbook reverts a configuration, which will not help."""
    async with story(
        folder,
        connected=lambda world: replace(world, reader=ReadAtStart(world.reader)),
        runbooks_dir=runbook(folder, steps),
        **{**ACTING, **settings},
    ) as stage:
        await innocent_configuration_beside_a_dying_dependency(stage)
        yield stage


def taken(record: IncidentRecord) -> list[ActionName]:
    return [i.action.name for i in record.intents if i.started_at is not None]


def judged(record: IncidentRecord) -> list[str]:
    """The messages of the verifications, in order."""
    return [e.message.partition(":")[0] for e in record.timeline if e.message.startswith("Verifying ")]


async def test_a_verdict_on_an_earlier_step_does_not_stand_for_a_later_one(tmp_path: Path) -> None:
    """The first step is judged and undone; the second is cut short by the budget, judged and undone too."""
    async with useless_configuration(tmp_path, SCALE + REVERT, max_actions_per_incident=2) as stage:
        record = await stage.live_until_ended(key=CART)
        told = messages(record.timeline)
        assert taken(record) == [
            ActionName.SCALE,
            ActionName.RESTORE,
            ActionName.REVERT_CONFIG,
            ActionName.RESTORE,
        ], told
        assert judged(record) == ["Verifying scale", "Verifying revert config"], told
        assert "Undoing revert config on ConfigMap prod/cart-config: it did not help." in told
        assert greeting(stage) == "hi"
        assert record.incident.state is IncidentState.ESCALATED
        assert record.incident.verdict is not None
        assert record.incident.verdict.intent_id == record.intents[2].id
        assert "Still in place" not in record.incident.summary


async def test_a_step_that_is_not_complete_is_judged_before_the_plan_goes_on(tmp_path: Path) -> None:
    """The completing restart is denied: the revert is undone before the next step, which is not skipped."""
    allowed = {"revert_config", "scale"}
    async with useless_configuration(tmp_path, REVERT + SCALE, enabled_actions=allowed) as stage:
        record = await stage.live_until_ended(key=CART)
        told = messages(record.timeline)
        assert taken(record) == [
            ActionName.REVERT_CONFIG,
            ActionName.RESTORE,
            ActionName.SCALE,
            ActionName.RESTORE,
        ], told
        assert judged(record) == ["Verifying revert config", "Verifying scale"], told
        assert greeting(stage) == "hi"


async def test_a_later_step_is_undone_although_the_first_one_could_not_be(tmp_path: Path) -> None:
    """A person edits the ConfigMap while the incomplete revert is verified: only the scale is undone."""
    allowed = {"revert_config", "scale"}
    async with useless_configuration(tmp_path, REVERT + SCALE, enabled_actions=allowed) as stage:
        (deployment,) = stage.world.deployments(NAMESPACE, "cart")
        before = deployment.replicas
        await stage.live_until(
            lambda r: r.incident.state is IncidentState.VERIFYING and bool(r.intents), key=CART
        )
        await stage.live_to_the_last_look(key=CART)
        edited = {"DEPENDENCY_URL": "http://db", "GREETING": "hey"}
        stage.world.put_config_map(NAMESPACE, "cart-config", edited)
        record = await stage.live_until_ended(key=CART)
        told = messages(record.timeline)
        assert taken(record) == [ActionName.REVERT_CONFIG, ActionName.SCALE, ActionName.RESTORE], told
        assert record.intents[-1].undoes == record.intents[-2].id
        assert told.count("Not undone: ConfigMap prod/cart-config was changed since") == 1
        (deployment,) = stage.world.deployments(NAMESPACE, "cart")
        assert (deployment.replicas, greeting(stage)) == (before, "hey")
        assert "Not undone: revert config of ConfigMap prod/cart-config, changed since by" in (
            record.incident.summary
        )
        assert "Still in place" not in record.incident.summary


async def denied(stage: Story, record: IncidentRecord) -> None:
    await stage.say(record.approvals[-1], yes=False)


async def expired(stage: Story, record: IncidentRecord) -> None:
    await stage.clock.advance((record.approvals[-1].expires_at - stage.clock.now()).total_seconds())


async def killed(stage: Story, record: IncidentRecord) -> None:
    await stage.brake(engaged=True)
    await stage.say(record.approvals[-1], yes=True)


async def withdrawn(stage: Story, record: IncidentRecord) -> None:
    """The service answers again while people are asked, and then fails as before."""
    stage.world.set_replicas(NAMESPACE, "db", 3)
    await stage.live_until(lambda r: r.incident.state is not IncidentState.AWAITING_APPROVAL, key=CART)
    stage.world.set_replicas(NAMESPACE, "db", 0)


@pytest.mark.parametrize("happens", [denied, expired, killed, withdrawn])
async def test_no_answer_leaves_an_action_unverified(
    tmp_path: Path, happens: Callable[[Story, IncidentRecord], Any]
) -> None:
    """The first step was judged; the second is half done when people are asked for the rest of it."""
    async with useless_configuration(
        tmp_path, REVERT, approval_for_risks={"medium"}, approval_timeout_seconds=600
    ) as stage:
        record = await stage.live_until(
            lambda r: bool(r.approvals) and r.approvals[-1].state is ApprovalState.PENDING, key=CART
        )
        assert taken(record) == [ActionName.REVERT_CONFIG], messages(record.timeline)
        await happens(stage, record)
        record = await stage.live_until_ended(key=CART)
        told = messages(record.timeline)
        assert judged(record)[0] == "Verifying revert config", told
        assert taken(record)[:2] == [ActionName.REVERT_CONFIG, ActionName.RESTORE], told
        assert greeting(stage) == "hi"
        assert "Recovered without any action" not in told


# ---------------------------------------------------------------- what the end says


TWO_STEPS = "  - action: rollback\n    parameters:\n      to: previous_healthy\n  - action: restart\n"


async def test_a_recovery_after_an_undo_names_what_was_done(tmp_path: Path) -> None:
    """The rollback did not help and was undone; the service recovers while people are asked for more."""
    found = runbook(tmp_path, TWO_STEPS, causes="bad_release")
    asking: dict[str, Any] = {"approval_for_risks": {"medium"}, "approval_timeout_seconds": 600}
    async with story(tmp_path, runbooks_dir=found, **asking, **ACTING) as stage:
        stage.deploy()
        await innocent_release_beside_a_dying_dependency(stage)
        await stage.live_until_asked()
        stage.world.set_replicas(NAMESPACE, "db", 3)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION
        assert record.incident.summary == (
            "Recovered by itself: rollback of Deployment prod/shop did not help and was undone."
        )


@pytest.mark.parametrize("asks", [False, True])
async def test_a_failed_undo_is_escalated_although_the_service_recovers(tmp_path: Path, asks: bool) -> None:
    """The API server refuses the undo of the rollback; the restart helps, or is not needed any more."""
    people = Listener()
    asking: dict[str, Any] = {"approval_for_risks": {"medium"}, "approval_timeout_seconds": 600}
    async with story(
        tmp_path,
        connected=lambda world: replace(world, writer=Refusing(world.writer, ActionName.RESTORE)),
        runbooks_dir=runbook(tmp_path, TWO_STEPS, causes="bad_release"),
        **{**ACTING, **(asking if asks else {})},
    ) as stage:
        object.__setattr__(stage.agent.loop.stages.closer, "notifier", people)
        stage.deploy()
        await innocent_release_beside_a_dying_dependency(stage)
        await stage.live_until(lambda r: bool(r.approvals) or ActionName.RESTART in taken(r))
        stage.world.set_replicas(NAMESPACE, "db", 3)
        record = await stage.live_until_ended()
        summary = record.incident.summary
        assert record.incident.state is IncidentState.ESCALATED, summary
        assert people.told == [summary]
        assert "rollback of Deployment prod/shop did not help. Still in place: rollback of" in summary
        assert ("Runbook steps@1 helped" in summary) is not asks
        assert ("Recovered by itself" in summary) is asks
        assert "The symptoms ended before any action" not in messages(record.timeline)


async def test_an_end_reads_the_target_that_its_summary_speaks_of(tmp_path: Path) -> None:
    """The Deployment is deleted while the rollback is verified: nothing of it is said to stand."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        await innocent_release_beside_a_dying_dependency(stage)
        await stage.live_until(lambda r: r.incident.state is IncidentState.VERIFYING)
        stage.world.delete_deployment(NAMESPACE, SERVICE)
        record = await stage.live_until_ended()
        assert record.incident.summary.endswith(
            " Not undone: rollback of Deployment prod/shop, which no longer exists."
        )


async def test_a_recovery_after_the_change_of_a_person_is_not_credited_to_the_agent(tmp_path: Path) -> None:
    """A person releases while the rollback is verified, and the service recovers."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.4, p95_latency_ms=80.0)
        told = await fire(setting)
        await stage.live_until(lambda r: r.incident.state is IncidentState.VERIFYING and bool(r.intents))
        await stage.live(60)
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.001, p95_latency_ms=80.0)
        await resolve(setting, told)
        await stage.live(30)
        stage.world.release(NAMESPACE, SERVICE, "shop:3")
        released = stage.clock.now()
        record = await stage.live_until_ended()
        incident = record.incident
        assert "rollback is superseded" in messages(record.timeline)
        assert "Verifying the new state" in messages(record.timeline)
        assert incident.closed_at is not None
        assert incident.closed_at - released >= timedelta(seconds=60), "a whole soak of the new state"
        assert incident.state is IncidentState.RECOVERED
        assert f"Deployment prod/shop was changed since by {PIPELINE}" in incident.summary
        assert "unknown whether rollback of Deployment prod/shop helped" in incident.summary
        assert incident.lesson is not None
        assert incident.lesson.worked is False


async def test_a_change_that_a_person_replaced_is_not_called_in_place(tmp_path: Path) -> None:
    """A person releases over the rollback while it is verified: it is not undone, and not said to stand."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        await innocent_release_beside_a_dying_dependency(stage)
        await stage.live_until(lambda r: r.incident.state is IncidentState.VERIFYING)
        await stage.live(30)
        stage.world.release(NAMESPACE, SERVICE, "shop:3")
        released = stage.clock.now()
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert record.incident.closed_at is not None
        assert record.incident.closed_at - released <= timedelta(seconds=15), "not at the time limit"
        assert record.incident.verdict is not None
        assert record.incident.verdict.kind is VerdictKind.CANNOT_TELL
        assert f"Deployment prod/shop was changed since by {PIPELINE}" in record.incident.verdict.reasons[0]
        assert stage.image() == "shop:3"
        assert [i.action.name for i in record.intents] == [ActionName.ROLLBACK]
        assert f"Not undone: rollback of Deployment prod/shop, changed since by {PIPELINE}." in (
            record.incident.summary
        )
        assert "Still in place" not in record.incident.summary


async def test_a_failure_of_verification_says_what_stands(tmp_path: Path) -> None:
    """Verification fails for good: the rollback stands unverified, and the person who is asked reads so."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        await innocent_release_beside_a_dying_dependency(stage)
        record = await stage.live_until(lambda r: r.incident.state is IncidentState.VERIFYING)
        claim = await stage.agent.store.claims.take(
            record.incident.id, "worker", stage.agent.loop.lease, stage.clock.now()
        )
        assert claim is not None
        error = PermanentError("no such service")
        await stage.agent.loop.stages.closer.stop_at(record, claim, "verify", error)
        record = await stage.load(record.incident.id)
        assert record.incident.summary == (
            "Stage verify failed permanently: no such service. Still in place: rollback of Deployment "
            "prod/shop. The effect of rollback was not verified."
        )


async def test_an_action_that_failed_is_not_given_the_verdict_of_an_earlier_one(tmp_path: Path) -> None:
    """The API server refuses the second step: it did not run, so it cannot have failed to help."""
    found = runbook(tmp_path, TWO_STEPS, causes="bad_release")
    async with story(
        tmp_path,
        connected=lambda world: replace(world, writer=Refusing(world.writer, ActionName.RESTART)),
        runbooks_dir=found,
        **ACTING,
    ) as stage:
        stage.deploy()
        await innocent_release_beside_a_dying_dependency(stage)
        record = await stage.live_until_ended()
        assert record.incident.summary == (
            "restart was not executed: refused by the API server: pods may not be replaced. "
            "To inspect: kubectl -n prod describe deployment shop"
        )


@dataclass
class Refusing:
    """A writer that the API server allows everything but one kind of action."""

    inner: Any
    refused: ActionName

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        if action.name is self.refused:
            raise Forbidden("pods may not be replaced")
        after: TargetState = await self.inner.apply(action, intent_id, target, snapshot)
        return after


async def test_a_change_to_dry_run_after_an_action_ends_with_what_was_done(tmp_path: Path) -> None:
    """The rollback was real and cannot be undone without write access: nothing is called a proposal."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        await innocent_release_beside_a_dying_dependency(stage)
        await stage.live_until(lambda r: r.incident.state is IncidentState.VERIFYING)
        await stage.restart(dry_run=True)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)
        assert "nothing was written" not in messages(record.timeline)
        assert record.incident.summary.endswith("Still in place: rollback of Deployment prod/shop.")


@pytest.mark.parametrize("by", ["the API server", "the policy"])
async def test_a_step_that_completes_an_action_is_left_out_where_that_was_refused(
    by: str, tmp_path: Path
) -> None:
    """The revert does not take place: a restart would start pods with the configuration that fails."""

    def connected(world: Any) -> Any:
        writer = Refusing(world.writer, ActionName.REVERT_CONFIG) if by == "the API server" else world.writer
        return replace(world, reader=ReadAtStart(world.reader), writer=writer)

    settings = {**ACTING, "allow_high_risk_actions": by == "the API server"}
    async with story(
        tmp_path, connected=connected, runbooks_dir=runbook(tmp_path, REVERT), **settings
    ) as stage:
        await innocent_configuration_beside_a_dying_dependency(stage)
        record = await stage.live_until_ended(key=CART)
        assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)
        assert [i.action.name for i in record.intents] == [ActionName.REVERT_CONFIG]
        assert "Handover: " in messages(record.timeline)
        assert "To inspect: kubectl -n prod " in record.incident.summary
