"""Rule: more requests than the replicas can serve, without a change."""

from __future__ import annotations

from datetime import timedelta

from app.agent.evidence.changes import (
    config_map_of,
    own_changes,
    release_of,
    template_config_of,
    told_config_of,
)
from app.agent.evidence.counter_evidence import weigh_blindness, weigh_tried
from app.agent.evidence.facts import LOOKBACK, Trouble
from app.agent.evidence.format import span
from app.agent.evidence.pods import sick
from app.agent.evidence.scoring import Weighing
from app.agent.evidence.symptoms import (
    TRAFFIC,
    Rise,
    breached,
    metric_onset,
    rise,
)
from app.agent.evidence.timing import LATE, SOON
from app.agent.models import ActionName, Cause, ChangeKind, Evidence, Hypothesis

_FAR_MORE = 3.0


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """None unless the request rate rose and an objective is breached; the load must rise first."""
    surge = rise(evidence, TRAFFIC)
    if surge is None or not breached(evidence):
        return None
    weighing = Weighing()
    told = f"request rate went from {TRAFFIC.spoken(surge.base)} to {TRAFFIC.spoken(surge.level)}"
    weighing.speaks_for(0.7, told)
    if surge.level >= surge.base * _FAR_MORE:
        weighing.speaks_for(0.2, f"that is {surge.level / max(surge.base, 0.01):.0f} times as much")
    _weigh_order(weighing, surge, evidence)
    _weigh_changes(weighing, evidence)
    _weigh_use(weighing, evidence)
    weigh_blindness(weighing, evidence)
    weigh_tried(weighing, ActionName.SCALE, evidence)
    return weighing.hypothesis(Cause.TRAFFIC_SURGE, "traffic_surge")


def _weigh_order(weighing: Weighing, surge: Rise, evidence: Evidence) -> None:
    """If errors come first, clients retry: then the load is a symptom."""
    began = metric_onset(evidence)
    lead = began - surge.at
    if all(rise(evidence, i) is None for i in breached(evidence)):
        weighing.speaks_against(0.4, "no history shows whether the load or the incident came first")
    elif lead < timedelta(0):
        weighing.speaks_against(0.8, f"the incident started {span(lead)} before the load rose")
    elif lead > LATE:
        weighing.speaks_against(0.5, f"the load had been high for {span(lead)} without an incident")
    else:
        weighing.speaks_for(0.2, f"the load rose {span(lead)} before the incident started")


def _weigh_changes(weighing: Weighing, evidence: Evidence) -> None:
    began = metric_onset(evidence)
    suspects = (
        release_of(evidence),
        template_config_of(evidence),
        config_map_of(evidence),
        told_config_of(evidence),
    )
    times = [(s.at, s.what) for s in suspects if s is not None and s.recent and s.at < began]
    others = own_changes(evidence, ChangeKind.FLAG, ChangeKind.SCALE, ChangeKind.CONFIG)
    times += [(c.at, c.summary) for c in others if began - LOOKBACK <= c.at < began]
    if not times:
        return
    at, what = max(times)
    close = abs(began - at) <= SOON
    weighing.speaks_against(
        0.4 if close else 0.1, f"{what} was {span(began - at)} before the incident started"
    )


def _weigh_use(weighing: Weighing, evidence: Evidence) -> None:
    """Evidence that more replicas would not help, or would cause harm."""
    down = sorted(d.service for d in evidence.dependencies if d in evidence.other_open_incidents)
    if down:
        weighing.speaks_against(
            0.6, f"{', '.join(down)}, a dependency, is unhealthy: more replicas would increase its load"
        )
    found = sick(evidence.workload.pods, evidence) if evidence.workload is not None else None
    if found is not None and found.total() > found[Trouble.NOT_READY] + found[Trouble.OUT_OF_MEMORY]:
        weighing.speaks_against(0.5, f"{found.total()} of its pods have faults that load does not cause")
