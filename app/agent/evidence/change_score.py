"""Everything that is asked of a suspect change, in one order, whatever kind of change it is."""

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
    """Weigh pods, timing and alibis of a change; `remedy` is what would be done about it."""
    weighing = Weighing()
    began = trouble_began(evidence)
    if suspect.recent and suspect.at < began:
        weighing.speaks_for(0.1, f"{suspect.what} came {relative(suspect.at, began, 'the incident started')}")
    elif not suspect.recent:
        weighing.speaks_against(
            0.85, f"{suspect.what} had been in force for {span(began - suspect.at)} by then"
        )
    if failed_deploys(evidence) and suspect.in_template:
        weighing.speaks_for(0.5 if suspect.confirmed else 0.7, "the pipeline says that its deploy failed")
    weigh_pods(weighing, suspect, evidence, pods)
    weigh_timing(weighing, suspect, evidence)
    weigh_alibis(weighing, suspect, evidence)
    weigh_tried(weighing, remedy, evidence)
    return weighing
