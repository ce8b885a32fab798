"""A workload that a Helm release wrote: a change of it is drift, and the next release is seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent.actions.preconditions import released_by_tool
from app.agent.evidence.cluster.handover import handover
from app.agent.evidence.cluster.release_records import STUCK_AFTER, pending_words, with_releases
from app.agent.execution.recheck import lapsed
from app.agent.guardrails.drift import DriftRule
from app.agent.ids import JsonObject, ServiceKey
from app.agent.models import ActionName, Cause, Change, ChangeKind, DecisionKind, DeployStatus, IncidentState
from app.agent.planner import plan_hash
from app.agent.workload import ReleaseRecord
from app.connectors.kubernetes.releases.records import release_records
from tests.stories import ACTING, KEY, NAMESPACE, SERVICE, Story, messages, story
from tests.unit.scenes import OLD, at, evidence, pods, workload

DRIFT = "rollback makes Deployment prod/shop drift from Helm release store"


@asynccontextmanager
async def released(directory: Path, **settings: Any) -> AsyncIterator[Story]:
    """A bad release through Helm of a service that has served well."""
    async with story(directory, **ACTING, **settings) as stage:
        stage.deploy(annotations={"meta.helm.sh/release-name": "store"})
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        yield stage


async def test_a_write_that_drifts_from_a_release_asks_a_person(tmp_path: Path) -> None:
    """By default; the approval, the decision and the outcome name the release."""
    async with released(tmp_path) as stage:
        approval = await stage.live_until_asked()
        asked = await stage.newest()
        assert asked is not None
        told = messages(asked.timeline)
        assert f"{DRIFT}, which does not notice it" in told
        assert "HELM_DRIFT=ask requires an approval" in told
        assert stage.image() == "shop:2-crash"
        await stage.say(approval, yes=True)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED
        assert stage.image() == "shop:1"
        assert "Helm release store has another state since" in messages(record.timeline)


@pytest.mark.parametrize(
    ("rule", "decision", "words"),
    [
        (DriftRule.ACT, DecisionKind.ALLOW, DRIFT),
        (DriftRule.ESCALATE, DecisionKind.DENY, "HELM_DRIFT=escalate leaves it to a person"),
    ],
)
async def test_what_is_done_about_drift_is_set(
    tmp_path: Path, rule: DriftRule, decision: DecisionKind, words: str
) -> None:
    """Acting says so in the timeline as well; escalating writes nothing."""
    async with released(tmp_path, helm_drift=rule) as stage:
        record = await stage.live_until_ended()
        (intent,) = record.intents
        assert intent.decision.kind is decision
        assert words in messages(record.timeline)
        assert words in "; ".join(intent.decision.reasons)
        assert stage.image() == ("shop:1" if rule is DriftRule.ACT else "shop:2-crash")
        if rule is not DriftRule.ACT:
            return
        limits = stage.agent.loop.stages.executor.policy.limits
        strict = replace(limits, drift=DriftRule.ASK)
        assert lapsed(record, intent, limits, intent.decision.at, can_write=True) is None
        why = lapsed(record, intent, strict, intent.decision.at, can_write=True)
        assert why is not None
        assert "HELM_DRIFT=ask requires an approval" in why
        plan = record.incident.plan
        assert plan is not None
        assert plan.hash == plan_hash(plan.runbook_hash, plan.actions)
        [action] = plan.actions
        assert (action.name, action.drifts_from) == (ActionName.ROLLBACK, "Helm release store")


def record_of(revision: int, status: str, minutes: float) -> ReleaseRecord:
    return ReleaseRecord(revision=revision, status=status, begun_at=at(minutes), at=at(minutes))


def test_a_new_release_is_a_change_of_the_service() -> None:
    """With its status, each revision once, and only since the time that is looked at."""
    view = workload(
        [OLD],
        pods(OLD, 2),
        released_by="Helm release payments",
        release_records=(
            record_of(9, "pending-upgrade", -1),
            record_of(8, "failed", -5),
            record_of(7, "deployed", -99),
        ),
    )
    changes = with_releases((), KEY, view, at(-60))
    assert [(c.summary, c.status) for c in changes] == [
        ("Helm release payments revision 9 (pending-upgrade)", DeployStatus.STARTED),
        ("Helm release payments revision 8 (failed)", DeployStatus.FAILED),
    ]
    assert with_releases(changes, KEY, replace(view, released_by=None), at(-60)) == changes
    assert released_by_tool(view) == "Helm release payments"
    assert released_by_tool(replace(view, managed_by="argocd")) is None  # its chart is rendered elsewhere


def test_a_release_is_dated_by_its_beginning() -> None:
    """Its record is written again at its end, and with the next release: neither is a change."""
    records = release_records(
        [
            helm_record(4, "superseded", begun=-900, written=5),
            helm_record(5, "deployed", begun=0, written=5),
            helm_record(6, "pending-upgrade", begun=7, written=None),
        ]
    )
    assert [(one.revision, one.begun_at, one.at) for one in records] == [
        (6, at(7), at(7)),
        (5, at(0), at(5)),
        (4, at(-900), at(5)),
    ]
    view = workload([OLD], pods(OLD, 2), released_by="Helm release payments", release_records=records)
    changes = with_releases((), KEY, view, at(-60))
    assert [(one.summary, one.at) for one in changes] == [
        ("Helm release payments revision 6 (pending-upgrade)", at(7)),
        ("Helm release payments revision 5 (deployed)", at(0)),
    ]


def test_one_report_is_of_one_revision() -> None:
    """The nearest in time; the other one is a change that no pipeline reported."""
    records = (record_of(9, "deployed", 2), record_of(8, "superseded", 0))
    view = workload([OLD], pods(OLD, 2), released_by="Helm release payments", release_records=records)
    report = Change(kind=ChangeKind.DEPLOY, key=KEY, at=at(1.5), summary="deploy")
    assert [one.summary for one in with_releases([report], KEY, view, at(-60))] == [
        "deploy",
        "Helm release payments revision 8 (superseded)",
    ]


def helm_record(revision: int, status: str, *, begun: float, written: float | None) -> JsonObject:
    labels: JsonObject = {"owner": "helm", "name": "payments", "version": str(revision), "status": status}
    if written is not None:
        labels["modifiedAt"] = str(int(at(written).timestamp()))
    return {"metadata": {"labels": labels, "creationTimestamp": f"{at(begun):%Y-%m-%dT%H:%M:%SZ}"}}


@pytest.mark.parametrize(
    ("reports", "left"),
    [
        ([(-10.5, DeployStatus.SUCCEEDED)], [9]),
        ([(-1, DeployStatus.SUCCEEDED)], [9]),  # reported at its end, nine minutes after its beginning
        ([(-10, DeployStatus.STARTED), (2, DeployStatus.FAILED)], []),
        ([(3, DeployStatus.CANCELLED)], [8]),
        ([(-30, DeployStatus.SUCCEEDED)], [8, 9]),
        ([(-10, DeployStatus.FAILED)], [8, 9]),  # another one: this revision succeeded
        ([(2, DeployStatus.SUCCEEDED)], [9]),  # of the one that did not fail
    ],
)
def test_a_release_that_the_pipeline_reported_is_one_change(
    reports: list[tuple[float, DeployStatus]], left: list[int]
) -> None:
    """Each report is of one revision; another time or outcome makes another change."""
    eight = ReleaseRecord(revision=8, status="deployed", begun_at=at(-10), at=at(-1))
    records = (record_of(9, "failed", 2), eight)
    view = workload([OLD], pods(OLD, 2), released_by="Helm release payments", release_records=records)
    known = [
        Change(kind=ChangeKind.DEPLOY, key=KEY, at=at(minutes), summary="deploy", status=status)
        for minutes, status in reports
    ]
    other = ServiceKey(environment=KEY.environment, service="other")
    known.append(Change(kind=ChangeKind.DEPLOY, key=other, at=at(-10), summary="deploy"))
    known.append(Change(kind=ChangeKind.CONFIG, key=KEY, at=at(-10), summary="flag"))
    found = [one.summary for one in with_releases(known, KEY, view, at(-60))]
    assert len(found) == len(known) + len(left)
    assert sorted(int(one.split()[4]) for one in found if one.startswith("Helm")) == left


@pytest.mark.parametrize(
    ("status", "age", "pending", "stuck"),
    [
        ("deployed", STUCK_AFTER, False, False),
        ("pending-upgrade", timedelta(minutes=1), True, False),
        ("pending-rollback", STUCK_AFTER, True, True),
    ],
)
def test_a_release_that_is_not_finished_is_a_fact_for_a_person(
    status: str, age: timedelta, pending: bool, stuck: bool
) -> None:
    """Stuck after ten minutes, when the tool that waited for it has given up or died."""
    view = workload([OLD], pods(OLD, 2), released_by="Helm release payments")
    newest = ReleaseRecord(revision=4, status=status, begun_at=at(-99), at=view.observed_at - age)
    view = replace(view, release_records=(newest,))
    words = pending_words(view, view.observed_at)
    assert (words is not None) is pending
    assert ("it is stuck" in (words or "")) is stuck
    given = handover(evidence(workload=view), Cause.BAD_RELEASE)
    assert given is not None
    assert (words in given.facts) is pending
