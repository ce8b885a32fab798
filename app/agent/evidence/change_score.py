"""The score of a candidate change: how likely it is that the change caused the incident."""

from __future__ import annotations

from app.agent.evidence.changes import Suspect
from app.agent.evidence.counter_evidence import weigh_alibis, weigh_tried
from app.agent.evidence.format import relative, span
from app.agent.evidence.pods import PodWeights, weigh_pods
from app.agent.evidence.scoring import Weighing
from app.agent.evidence.symptoms import failed_deploys, trouble_began
from app.agent.evidence.timing import weigh_timing
from app.agent.models import ActionName, Evidence


def accuse(suspect: Suspect, evidence: Evidence, pods: PodWeights, remedy: ActionName) -> Weighing:
    """Score a change by pods, timing and counter-evidence; `remedy` is the action that would undo it."""
    weighing = Weighing()
    began = trouble_began(evidence)
    if suspect.recent and suspect.at < began:
        weighing.speaks_for(0.1, f"{suspect.what} was {relative(suspect.at, began, 'the incident started')}")
    elif not suspect.recent:
        weighing.speaks_against(
            0.85, f"{suspect.what} had been active for {span(began - suspect.at)} when the incident started"
        )
    if failed_deploys(evidence) and suspect.in_template:
        weighing.speaks_for(0.5 if suspect.confirmed else 0.7, "the pipeline reported a failed deploy")
    weigh_pods(weighing, suspect, evidence, pods)
    weigh_timing(weighing, suspect, evidence)
    weigh_alibis(weighing, suspect, evidence)
    weigh_tried(weighing, remedy, evidence)
    return weighing
