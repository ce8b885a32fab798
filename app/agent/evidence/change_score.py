"""The score of a candidate change: how likely it is that the change caused the incident."""

from __future__ import annotations

from app.agent.evidence.changes import CandidateChange
from app.agent.evidence.counter_evidence import score_counter_evidence, score_tried_remedy
from app.agent.evidence.format import relative
from app.agent.evidence.onset.alignment import score_alignment
from app.agent.evidence.pods import PodWeights, score_pods
from app.agent.evidence.scoring import CauseScore
from app.agent.evidence.symptoms import failed_deploys, incident_onset
from app.agent.evidence.timing import score_timing
from app.agent.models import ActionName, Evidence
from app.durations import span


def score_change(
    candidate_change: CandidateChange, evidence: Evidence, pods: PodWeights, remedy: ActionName
) -> CauseScore:
    """Score a change by pods, timing and counter-evidence; `remedy` is the action that would undo it."""
    cause_score = CauseScore()
    began = incident_onset(evidence)
    if candidate_change.recent and candidate_change.at < began:
        cause_score.add_for(
            0.1, f"{candidate_change.what} was {relative(candidate_change.at, began, 'the incident started')}"
        )
    elif not candidate_change.recent:
        cause_score.add_against(
            0.85,
            f"{candidate_change.what} had been active for {span(began - candidate_change.at)}"
            " when the incident started",
        )
    if failed_deploys(evidence) and candidate_change.in_template:
        cause_score.add_for(
            0.5 if candidate_change.confirmed else 0.7, "the pipeline reported a failed deploy"
        )
    score_pods(cause_score, candidate_change, evidence, pods)
    score_timing(cause_score, candidate_change, evidence)
    score_alignment(cause_score, candidate_change, evidence)
    score_counter_evidence(cause_score, candidate_change, evidence)
    score_tried_remedy(cause_score, remedy, evidence)
    return cause_score
