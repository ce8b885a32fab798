"""Rule: code that was healthy for hours runs out of memory without a change."""

from __future__ import annotations

from app.agent.evidence.changes import config_map_of, deploys
from app.agent.evidence.counter_evidence import score_missing_data, score_tried_remedy
from app.agent.evidence.facts import (
    LOOKBACK,
    PodFault,
    in_force_since,
    out_of_memory,
    pod_fault,
)
from app.agent.evidence.format import counted
from app.agent.evidence.scoring import CauseScore
from app.agent.evidence.symptoms import TRAFFIC, incident_onset, rise
from app.agent.models import ActionName, Cause, Evidence, Hypothesis
from app.durations import span


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """Without a cluster the age of the code is unknown, so the confidence stays low."""
    if not out_of_memory(evidence):
        return None
    cause_score = CauseScore()
    _score_kills(cause_score, evidence)
    _score_age(cause_score, evidence)
    changed = config_map_of(evidence)
    if changed is not None:
        cause_score.add_against(0.5, f"{changed.what} was shortly before")
    surge = rise(evidence, TRAFFIC)
    if surge is not None:
        cause_score.add_against(
            0.4, f"request rate rose to {TRAFFIC.in_words(surge.level)}, which also uses memory"
        )
    score_missing_data(cause_score, evidence)
    score_tried_remedy(cause_score, ActionName.RESTART, evidence)
    return cause_score.hypothesis(Cause.MEMORY_LEAK, "memory_leak")


def _score_kills(cause_score: CauseScore, evidence: Evidence) -> None:
    pods = evidence.workload.pods if evidence.workload is not None else ()
    killed = [p for p in pods if pod_fault(p, evidence.at) is PodFault.OUT_OF_MEMORY]
    if not killed:
        cause_score.add_for(0.4, "a container was OOM-killed")
        return
    restarts = max(p.restarts for p in killed)
    finding = f"{len(killed)} of {counted(len(pods), 'pod')} ran out of memory{_restarted(restarts)}"
    cause_score.add_for(0.6 if restarts >= 2 else 0.4, finding)


def _restarted(restarts: int) -> str:
    """The highest number of restarts of a pod, with the reason; empty without restarts."""
    if restarts == 0:
        return ""
    return " and restarted once" if restarts == 1 else f" and restarted up to {restarts} times"


def _score_age(cause_score: CauseScore, evidence: Evidence) -> None:
    began = incident_onset(evidence)
    since = in_force_since(evidence.workload) if evidence.workload is not None else None
    recent = [c for c in deploys(evidence) if began - LOOKBACK <= c.at < began]
    if since is not None and began - since > LOOKBACK:
        cause_score.add_for(0.5, f"the same template had been running for {span(began - since)}")
    elif since is not None:
        cause_score.add_against(
            0.6, f"its template is only {span(began - since)} old: too recent for a slow leak"
        )
    if recent:
        cause_score.add_against(
            0.3, f"a deploy was reported {span(began - recent[0].at)} before the incident started"
        )
