"""Rule: code that was healthy for hours runs out of memory without a change."""

from __future__ import annotations

from app.agent.evidence.changes import config_map_of, deploys
from app.agent.evidence.counter_evidence import weigh_blindness, weigh_tried
from app.agent.evidence.facts import (
    LOOKBACK,
    Trouble,
    in_force_since,
    out_of_memory,
    trouble,
)
from app.agent.evidence.format import span
from app.agent.evidence.scoring import Weighing
from app.agent.evidence.symptoms import TRAFFIC, rise, trouble_began
from app.agent.models import ActionName, Cause, Evidence, Hypothesis


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """Without a cluster the age of the code is unknown, so the confidence stays low."""
    if not out_of_memory(evidence):
        return None
    weighing = Weighing()
    _weigh_kills(weighing, evidence)
    _weigh_age(weighing, evidence)
    changed = config_map_of(evidence)
    if changed is not None:
        weighing.speaks_against(0.5, f"{changed.what} was shortly before")
    surge = rise(evidence, TRAFFIC)
    if surge is not None:
        weighing.speaks_against(
            0.4, f"request rate rose to {TRAFFIC.spoken(surge.level)}, which also uses memory"
        )
    weigh_blindness(weighing, evidence)
    weigh_tried(weighing, ActionName.RESTART, evidence)
    return weighing.hypothesis(Cause.MEMORY_LEAK, "memory_leak")


def _weigh_kills(weighing: Weighing, evidence: Evidence) -> None:
    pods = evidence.workload.pods if evidence.workload is not None else ()
    killed = [p for p in pods if trouble(p, evidence.at) is Trouble.OUT_OF_MEMORY]
    if not killed:
        weighing.speaks_for(0.4, "a container was OOM-killed")
        return
    restarts = max(p.restarts for p in killed)
    told = f"{len(killed)} of {len(pods)} pods ran out of memory and restarted up to {restarts} times"
    weighing.speaks_for(0.6 if restarts >= 2 else 0.4, told)


def _weigh_age(weighing: Weighing, evidence: Evidence) -> None:
    began = trouble_began(evidence)
    since = in_force_since(evidence.workload) if evidence.workload is not None else None
    recent = [c for c in deploys(evidence) if began - LOOKBACK <= c.at < began]
    if since is not None and began - since > LOOKBACK:
        weighing.speaks_for(0.5, f"the same template had been running for {span(began - since)}")
    elif since is not None:
        weighing.speaks_against(
            0.6, f"its template is only {span(began - since)} old: too young for a slow leak"
        )
    if recent:
        weighing.speaks_against(
            0.3, f"a deploy was reported {span(began - recent[0].at)} before the incident started"
        )
