"""Rule: someone took replicas away, and those that are left cannot serve the usual load."""

from __future__ import annotations

from datetime import timedelta

from app.agent.evidence.change_score import score_change
from app.agent.evidence.changes import CandidateChange, config_map_of, release_of, template_config_of
from app.agent.evidence.cluster.reduction import Reduction, reduction_of
from app.agent.evidence.facts import LOOKBACK, PodFault
from app.agent.evidence.onset.alignment import SERVED_LONG
from app.agent.evidence.onset.departure import departure
from app.agent.evidence.pods import PodWeights, fault_counts
from app.agent.evidence.scoring import CauseScore
from app.agent.evidence.symptoms import (
    CLOCK_TOLERANCE,
    LATENCY,
    TRAFFIC,
    breached,
    incident_onset,
    levels_around,
    points_of,
    rise,
)
from app.agent.models import ActionName, Cause, Evidence, Hypothesis
from app.durations import span

_POD_WEIGHTS: PodWeights = {PodFault.NOT_READY: 0.3}
_SEEN_WITHIN = timedelta(seconds=15)
"""A write of the number of replicas has no time of its own: it is seen up to so much later."""
_MORE_EACH = 1.2
"""A smaller factor of the load of each replica does not count as a difference."""


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """None unless an objective is breached and replicas were taken away; the load of each is compared."""
    found = reduction_of(evidence)
    if found is None or not breached(evidence):
        return None
    change = CandidateChange(
        what=f"a change of the replicas ({found.change.summary})",
        at=found.change.at - _SEEN_WITHIN,
        confirmed=True,
        recent=found.change.at >= incident_onset(evidence) - LOOKBACK,
        in_template=False,
    )
    cause_score = score_change(change, evidence, _POD_WEIGHTS, ActionName.SCALE)
    _score_beside(cause_score, found, evidence)
    _score_start(cause_score, found, evidence)
    _score_load(cause_score, found, evidence)
    _score_pods(cause_score, evidence)
    return cause_score.hypothesis(Cause.SCALED_TOO_LOW, "scaled_too_low")


def _score_beside(cause_score: CauseScore, found: Reduction, evidence: Evidence) -> None:
    """A change at the same time explains the symptom as well; a later one is scored as for every change."""
    others = (release_of(evidence), template_config_of(evidence), config_map_of(evidence))
    beside = [
        one.what for one in others if one is not None and abs(one.at - found.change.at) <= CLOCK_TOLERANCE
    ]
    if beside:
        cause_score.add_against(0.5, f"{beside[0]} was at the same time")


def _score_start(cause_score: CauseScore, found: Reduction, evidence: Evidence) -> None:
    """Replicas that are gone are missed at once, and those that are left answer late."""
    left = departure(evidence)
    served = None if left is None else left.after - found.change.at
    if served is not None and served >= SERVED_LONG:
        cause_score.add_against(0.75, f"those that are left served at the usual level for {span(served)}")
    if points_of(evidence, LATENCY) and rise(evidence, LATENCY) is None:
        cause_score.add_against(0.6, "requests take no longer: replicas with too much to serve answer late")


def _score_load(cause_score: CauseScore, found: Reduction, evidence: Evidence) -> None:
    """Fewer replicas explain a symptom only where each of them has more to serve than before."""
    levels = levels_around(evidence, found.change.at, TRAFFIC)
    if levels is None:
        cause_score.add_against(0.3, "no history shows the load of each replica before and after it")
        return
    earlier, now = levels[0] / found.before, levels[1] / found.after
    words = f"{TRAFFIC.in_words(now)} instead of {TRAFFIC.in_words(earlier)}"
    if now >= earlier * _MORE_EACH:
        cause_score.add_for(0.3, f"each replica gets {words}")
    else:
        cause_score.add_against(0.6, f"each replica gets no more than before ({words})")


def _score_pods(cause_score: CauseScore, evidence: Evidence) -> None:
    faults = None if evidence.workload is None else fault_counts(evidence.workload.pods, evidence)
    if faults is not None and faults.total() > faults[PodFault.NOT_READY] + faults[PodFault.OUT_OF_MEMORY]:
        cause_score.add_against(0.6, f"{faults.total()} of its pods have faults that load does not cause")
