"""How far the controller of Argo Rollouts has come with an update. Pure."""

from __future__ import annotations

from app.agent.guardrails.target_token import ABORTED, ABORTED_AT, STEP
from app.agent.ids import JsonObject
from app.agent.workload import RolloutProgress
from app.connectors.kubernetes.fields import flag, mapping, number, objects, text

_FAILED = frozenset({"Failed", "Error", "Inconclusive"})
"""How an AnalysisRun ends that stops an update."""
_RUNS = (
    ("canary", "currentStepAnalysisRunStatus"),
    ("canary", "currentBackgroundAnalysisRunStatus"),
    ("blueGreen", "prePromotionAnalysisRunStatus"),
    ("blueGreen", "postPromotionAnalysisRunStatus"),
)
"""Where a Rollout repeats the state of its AnalysisRuns."""
_SHORT = 300


def rollout_progress(rollout: JsonObject) -> RolloutProgress:
    """From the status of a Rollout alone: no AnalysisRun is read."""
    waits = next((text(one, "reason") for one in objects(rollout, "status", "pauseConditions")), None)
    return RolloutProgress(
        stable=not update_under_way(rollout),
        aborted=flag(rollout, "status", "abort"),
        waits=waits,
        analysis=_failed_analysis(rollout),
    )


def rollout_parts(rollout: JsonObject) -> dict[str, str]:
    """The parts of its token that a change of the status moves."""
    waits = bool(objects(rollout, "status", "pauseConditions"))
    step = number(rollout, "status", "currentStepIndex")
    return {
        ABORTED: "true" if flag(rollout, "status", "abort") else "false",
        ABORTED_AT: text(rollout, "status", "abortedAt") or "-",
        STEP: f"{'-' if step is None else step}{'w' if waits else ''}",
    }


def update_under_way(rollout: JsonObject) -> bool:
    """The current template is not the stable one."""
    current, stable = text(rollout, "status", "currentPodHash"), text(rollout, "status", "stableRS")
    return bool(current and stable) and current != stable


def _failed_analysis(rollout: JsonObject) -> str | None:
    for strategy, name in _RUNS:
        run = mapping(rollout, "status", strategy, name)
        if text(run, "status") in _FAILED:
            said = text(run, "message") or "no reason given"
            return f"AnalysisRun {text(run, 'name') or '?'} {text(run, 'status')}: {said}"[:_SHORT]
    return None
