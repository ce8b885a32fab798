"""The known families of faults, row by row: the right cause or none, and never the trap."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from app.agent.diagnosis import diagnose
from app.agent.ids import ServiceKey
from app.agent.models import (
    ActionName,
    Cause,
    ChangeKind,
    Condition,
    Deploy,
    DeployStatus,
    Evidence,
    TelemetryHealth,
    Trigger,
)
from app.agent.planner import make_plan
from app.agent.workload import RevisionHealth
from tests.unit.scenes import (
    CALLER,
    CATALOGUE,
    CRASH,
    DATABASE,
    DAY,
    KEY,
    LIMITS,
    NEW,
    OLD,
    change,
    config_map,
    config_record,
    crashing,
    curves,
    evidence,
    pods,
    pulling,
    record,
    released,
    revision,
    signal,
    step,
    workload,
)

ERRORS, SLOW, CRASHES, DEPLOY = (
    Trigger.HIGH_ERROR_RATE,
    Trigger.HIGH_LATENCY,
    Trigger.CRASH_LOOP,
    Trigger.DEPLOY_FAILED,
)
RISING = curves(errors=step(-2.5, 0.001, 0.13))
"""Errors from half a minute after a release at -3."""

CONFIG_ONLY = revision(7, -3, code_hash=OLD.code_hash, config_hash="config-new")
"""The code of the old revision with another configuration."""


@dataclass(frozen=True, kw_only=True)
class Row:
    fault: str
    seen: Evidence
    causes: frozenset[Cause]
    plan: tuple[ActionName, ...] = ()


def row(fault: str, seen: Evidence, *causes: Cause, plan: tuple[ActionName, ...] = ()) -> Row:
    return Row(fault=fault, seen=seen, causes=frozenset(causes), plan=plan)


ROLLBACK, REVERT, RESTART, SCALE = (
    (ActionName.ROLLBACK,),
    (ActionName.REVERT_CONFIG,),
    (ActionName.RESTART,),
    (ActionName.SCALE,),
)


def shops(count: int) -> tuple[ServiceKey, ...]:
    return tuple(ServiceKey(environment="prod", service=f"shop-{n}") for n in range(count))


ROWS = [
    row(
        "1 image that does not exist",
        evidence(
            DEPLOY,
            conditions=(Condition.IMAGE_PULL_BACK_OFF,),
            workload=released((*pulling(NEW), *pods(OLD))),
        ),
        Cause.BAD_RELEASE,
        plan=ROLLBACK,
    ),
    row(
        "1 the same, found hours later: the old pods still serve",
        evidence(
            DEPLOY,
            conditions=(Condition.IMAGE_PULL_BACK_OFF,),
            workload=released((*pulling(NEW), *pods(OLD)), created=-5 * 60),
        ),
        Cause.BAD_RELEASE,
        plan=ROLLBACK,
    ),
    row(
        "2 bad command in a release",
        evidence(CRASHES, conditions=CRASH, workload=released((*crashing(NEW, 1), *pods(OLD)))),
        Cause.BAD_RELEASE,
        plan=ROLLBACK,
    ),
    row(
        "2 the same after it took over, with errors",
        evidence(CRASHES, ERRORS, conditions=CRASH, workload=released(crashing(NEW)), sli=RISING),
        Cause.BAD_RELEASE,
        plan=ROLLBACK,
    ),
    row(
        "3 logic error in a release",
        evidence(ERRORS, workload=released(), sli=RISING, other_open_incidents=(CALLER, *shops(4))),
        Cause.BAD_RELEASE,
        plan=ROLLBACK,
    ),
    row(
        "3 the louder caller of it",
        evidence(
            ERRORS,
            sli=RISING,
            other_open_incidents=(DATABASE,),
            changes=(change(ChangeKind.DEPLOY, -3, key=DATABASE),),
        ),
        Cause.DEPENDENCY_FAILURE,
    ),
    row(
        "3 the louder caller, with the dependency unknown to us",
        evidence(ERRORS, sli=RISING, dependencies=(), other_open_incidents=(DATABASE,)),
        Cause.UNKNOWN,
    ),
    row(
        "4 slow release",
        evidence(SLOW, workload=released(), sli=curves(p95=step(-2.5, 200, 1800))),
        Cause.BAD_RELEASE,
        plan=ROLLBACK,
    ),
    row(
        "5 wrong address in the template's environment",
        evidence(ERRORS, workload=workload([CONFIG_ONLY, OLD], pods(CONFIG_ONLY)), sli=RISING),
        Cause.BAD_CONFIG,
        plan=REVERT,
    ),
    row(
        "5 wrong address in a ConfigMap",
        evidence(
            ERRORS,
            workload=workload([OLD], pods(OLD), config_maps=(config_map("new", -3),)),
            config_history=(config_record("old"),),
            sli=RISING,
        ),
        Cause.BAD_CONFIG,
        plan=REVERT,
    ),
    row(
        "6 selector wrong: pods ready, no traffic",
        evidence(ERRORS, sli=curves(errors=step(-2, 0.001, 1.0))),
        Cause.UNKNOWN,
    ),
    row(
        "6 the same, with a manifest deployed that left the pods alone",
        evidence(
            ERRORS,
            sli=RISING,
            changes=(change(ChangeKind.DEPLOY, -3, version="1.6.1"),),
            signals=(signal(Deploy(version="1.6.1", status=DeployStatus.SUCCEEDED), -3),),
        ),
        Cause.UNKNOWN,
    ),
    row(
        "7 memory limit too low",
        evidence(
            CRASHES,
            conditions=(Condition.CRASH_LOOP_BACK_OFF, Condition.OOM_KILLED),
            workload=workload([CONFIG_ONLY, OLD], crashing(CONFIG_ONLY, reason="OOMKilled")),
        ),
        Cause.RESOURCE_LIMIT,
        plan=REVERT,
    ),
    row(
        "8 slow leak of an old release",
        evidence(
            CRASHES,
            conditions=(Condition.OOM_KILLED,),
            workload=workload([OLD], (*crashing(OLD, 1, reason="OOMKilled"), *pods(OLD, 2, restarts=3))),
        ),
        Cause.MEMORY_LEAK,
        plan=RESTART,
    ),
    row(
        "8 slow leak, with an innocent deploy half an hour before",
        evidence(
            CRASHES,
            conditions=(Condition.OOM_KILLED,),
            workload=released(
                (*crashing(revision(7, -30), 1, reason="OOMKilled"), *pods(revision(7, -30), 2)), created=-30
            ),
        ),
        Cause.UNKNOWN,
    ),
    row(
        "9 readiness probe wrong in a release",
        evidence(
            DEPLOY,
            conditions=(Condition.PROGRESS_DEADLINE_EXCEEDED,),
            workload=released((*pods(NEW, 1, ready=False), *pods(OLD)), progress_deadline_exceeded=True),
        ),
        Cause.BAD_RELEASE,
        plan=ROLLBACK,
    ),
    row(
        "9 old pods stop being ready, nothing changed",
        evidence(ERRORS, workload=workload([OLD], pods(OLD, ready=False)), sli=RISING),
        Cause.UNKNOWN,
    ),
    row("10 network policy blocks one edge", evidence(ERRORS, SLOW, sli=RISING), Cause.UNKNOWN),
    row(
        "11 node lost",
        evidence(
            ERRORS,
            workload=workload(
                [OLD], (*pods(OLD, 2), *pods(OLD, 2, ready=False, phase="Unknown", node="node-9"))
            ),
            sli=RISING,
        ),
        Cause.NODE_FAILURE,
    ),
    row(
        "12 grey node: errors of many services, nothing changed here",
        evidence(ERRORS, sli=RISING, other_open_incidents=shops(5)),
        Cause.UNKNOWN,
    ),
    row(
        "12 grey node: the fresh release is sick on one node only",
        evidence(
            ERRORS,
            workload=released((*pods(NEW, 2, created=-3), *pods(NEW, 2, ready=False, node="node-9"))),
            other_open_incidents=shops(5),
        ),
        Cause.NODE_FAILURE,
        Cause.UNKNOWN,
    ),
    row(
        "13 feature flag, no deploy",
        evidence(ERRORS, sli=RISING, changes=(change(ChangeKind.FLAG, -3),)),
        Cause.UNKNOWN,
    ),
    row(
        "13 feature flag after a deploy",
        evidence(
            ERRORS,
            sli=RISING,
            workload=released(created=-12),
            changes=(change(ChangeKind.FLAG, -3), change(ChangeKind.DEPLOY, -12)),
        ),
        Cause.UNKNOWN,
    ),
    row(
        "14 traffic surge",
        evidence(ERRORS, sli=curves(requests=step(-5, 50, 180), errors=step(-3, 0.001, 0.1))),
        Cause.TRAFFIC_SURGE,
        plan=SCALE,
    ),
    row(
        "14 traffic surge with a deploy inside the window",
        evidence(
            ERRORS,
            workload=released(created=-25),
            sli=curves(requests=step(-5, 50, 180), errors=step(-3, 0.001, 0.1), since=-40),
        ),
        Cause.TRAFFIC_SURGE,
        plan=SCALE,
    ),
    row(
        "15 database saturated, no incident of its own yet",
        evidence(SLOW, sli=curves(p95=step(-2, 200, 1800))),
        Cause.UNKNOWN,
    ),
    row(
        "15 database saturated under more load",
        evidence(
            SLOW,
            sli=curves(p95=step(-2, 200, 1800), requests=step(-4, 50, 120)),
            other_open_incidents=(DATABASE, CALLER),
        ),
        Cause.DEPENDENCY_FAILURE,
    ),
    row("16 third party down", evidence(ERRORS, sli=RISING, dependencies=()), Cause.UNKNOWN),
    row(
        "17 telemetry outage, beside a release",
        evidence(
            ERRORS,
            workload=released(),
            sli=RISING,
            telemetry=TelemetryHealth(known_services=10, silent_services=8, source_reachable=True),
        ),
        Cause.TELEMETRY_OUTAGE,
    ),
    row(
        "17 the metric source is down while pods crash",
        evidence(
            CRASHES,
            conditions=CRASH,
            workload=released((*crashing(NEW, 1), *pods(OLD))),
            telemetry=TelemetryHealth(known_services=2, silent_services=0, source_reachable=False),
        ),
        Cause.TELEMETRY_OUTAGE,
    ),
    row(
        "18 innocent deploy beside a failing dependency",
        evidence(ERRORS, workload=released(created=-4), sli=RISING, other_open_incidents=(DATABASE,)),
        Cause.DEPENDENCY_FAILURE,
    ),
    row(
        "18 the same, and the new pods crash without the dependency",
        evidence(
            CRASHES,
            conditions=CRASH,
            workload=released((*crashing(NEW, 1), *pods(OLD))),
            other_open_incidents=(DATABASE,),
        ),
        Cause.UNKNOWN,
        Cause.DEPENDENCY_FAILURE,
    ),
    row(
        "19 irreversible release, marked in the cluster",
        evidence(ERRORS, workload=workload([replace(NEW, irreversible=True), OLD], pods(NEW)), sli=RISING),
        Cause.IRREVERSIBLE_RELEASE,
    ),
    row(
        "19 irreversible release, marked by the pipeline",
        evidence(
            ERRORS,
            workload=released(),
            sli=RISING,
            changes=(change(ChangeKind.DEPLOY, -3, version="1.7.0", irreversible=True),),
        ),
        Cause.IRREVERSIBLE_RELEASE,
    ),
    row(
        "20 two faults at once that share nothing",
        evidence(ERRORS, workload=released(), sli=RISING, other_open_incidents=shops(1)),
        Cause.BAD_RELEASE,
        plan=ROLLBACK,
    ),
    row(
        "21 a nightly job: traffic moves, the objectives hold",
        evidence(sli=curves(requests=step(-5, 50, 180))),
        Cause.UNKNOWN,
    ),
    row("21 a planned canary: a release, and nothing is wrong", evidence(workload=released()), Cause.UNKNOWN),
    row(
        "21 a deploy that its pipeline calls failed, though all is well",
        evidence(
            DEPLOY,
            workload=released(),
            signals=(signal(Deploy(version="1.7.0", status=DeployStatus.FAILED), -1),),
        ),
        Cause.UNKNOWN,
    ),
    row(
        "22 the rollback did not help: undone, the release runs again",
        evidence(
            ERRORS, workload=released(), sli=RISING, failed_actions=(ActionName.ROLLBACK, ActionName.RESTORE)
        ),
        Cause.UNKNOWN,
    ),
    row(
        "22 the rollback did not help: the old revision runs and is sick",
        evidence(
            ERRORS,
            workload=workload([replace(OLD, number=8), NEW, revision(5, -9 * DAY)], pods(OLD)),
            revision_history=(record(NEW, RevisionHealth.FAILED), record(OLD), record(revision(5, -9 * DAY))),
            sli=RISING,
            failed_actions=(ActionName.ROLLBACK,),
        ),
        Cause.UNKNOWN,
    ),
]


@pytest.mark.parametrize("known", ROWS, ids=lambda r: r.fault)
def test_each_known_fault_gets_its_cause_and_never_its_trap(known: Row) -> None:
    """The best hypothesis is the right one, and the plan is exactly what a careful engineer would do."""
    diagnosis = diagnose(known.seen)
    plan = make_plan(diagnosis, known.seen, CATALOGUE, LIMITS)
    told = [(h.cause.value, h.confidence, h.evidence_for, h.evidence_against) for h in diagnosis.hypotheses]
    assert diagnosis.best.cause in known.causes, told
    assert tuple(a.name for a in plan.actions) == known.plan, (told, plan.rejected)


def test_every_row_of_the_list_of_faults_is_covered() -> None:
    """All twenty-two families have at least one row here."""
    assert {int(r.fault.split()[0]) for r in ROWS} == set(range(1, 23))


def test_the_key_of_the_scenes_is_the_service_under_test() -> None:
    """No row describes another service by accident."""
    assert {r.seen.key for r in ROWS} == {KEY}
