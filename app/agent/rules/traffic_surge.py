"""Rule: more requests than the replicas can serve, without a change."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from statistics import median

from app.agent.evidence.changes import (
    CandidateChange,
    config_map_of,
    own_changes,
    release_of,
    reported_config_of,
    template_config_of,
)
from app.agent.evidence.counter_evidence import failing_together, score_missing_data, score_tried_remedy
from app.agent.evidence.facts import LOOKBACK, PodFault, unhealthy_dependencies
from app.agent.evidence.format import relative
from app.agent.evidence.onset.alignment import SERVED_LONG, served_well_for
from app.agent.evidence.onset.departure import departure, departure_of
from app.agent.evidence.pods import fault_counts
from app.agent.evidence.scoring import CauseScore
from app.agent.evidence.symptoms import (
    ERROR_RATE,
    LATENCY,
    TRAFFIC,
    Rise,
    SymptomIndicator,
    breached,
    metric_onset,
    points_of,
    rise,
)
from app.agent.evidence.timing import LATE, SOON
from app.agent.models import ActionName, Cause, ChangeKind, Evidence, Hypothesis
from app.durations import span

_FAR_MORE = 3.0

_GROWTH = replace(TRAFFIC, factor=1.25)
"""A load that is high enough to matter where the service had little room left."""

_BORNE = 0.97
"""The share of the present load from which an earlier load counts as the same."""
_BORNE_SAMPLES = 3
_FILLS = timedelta(minutes=2)
"""How long a large rise may take to fill queues and pools until requests fail."""

_BY_CALLER = timedelta(seconds=90)
"""A rollout of a caller, and the window of a measurement."""


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """None unless the request rate rose and an objective is breached; the load must rise first."""
    load = TRAFFIC if rise(evidence, TRAFFIC) is not None else _GROWTH
    surge = rise(evidence, load)
    if surge is None or not breached(evidence):
        return None
    cause_score = CauseScore()
    _score_rise(cause_score, load, surge, evidence)
    _score_order(cause_score, load, surge, evidence)
    _score_borne(cause_score, load, evidence)
    _score_callers(cause_score, load, surge, evidence)
    _score_changes(cause_score, evidence)
    _score_use(cause_score, evidence)
    _score_autoscaler(cause_score, evidence)
    score_missing_data(cause_score, evidence)
    score_tried_remedy(cause_score, ActionName.SCALE, evidence)
    return cause_score.hypothesis(Cause.TRAFFIC_SURGE, "traffic_surge")


def _score_rise(cause_score: CauseScore, load: SymptomIndicator, surge: Rise, evidence: Evidence) -> None:
    """A moderate rise explains an incident only together with answers that became slow."""
    finding = f"request rate went from {load.in_words(surge.base)} to {load.in_words(surge.level)}"
    cause_score.add_for(0.7 if load is TRAFFIC else 0.4, finding)
    if surge.level >= surge.base * _FAR_MORE:
        cause_score.add_for(0.2, f"that is {surge.level / max(surge.base, 0.01):.0f} times as much")
    slower = rise(evidence, LATENCY) if load is _GROWTH else None
    if slower is not None:
        went = f"{LATENCY.in_words(slower.base)} to {LATENCY.in_words(slower.level)}"
        cause_score.add_for(0.3, f"p95 latency went from {went}")


def _score_order(cause_score: CauseScore, load: SymptomIndicator, surge: Rise, evidence: Evidence) -> None:
    """If errors come first, clients retry: then the load is a symptom. Within one sample, callers may."""
    rose, symptom = departure_of(evidence, load), departure(evidence)
    began = metric_onset(evidence) if symptom is None else symptom.by
    lead = began - (surge.at if rose is None or symptom is None else rose.by)
    if all(rise(evidence, i) is None for i in breached(evidence)):
        cause_score.add_against(0.4, "no history shows whether the load or the incident came first")
    elif lead < timedelta(0):
        cause_score.add_against(0.8, f"the incident started {span(lead)} before the load rose")
    elif lead > LATE:
        cause_score.add_against(0.5, f"the load had been high for {span(lead)} without an incident")
    elif lead > timedelta(0):
        cause_score.add_for(0.2, f"the load rose {span(lead)} before the incident started")
    elif evidence.callers and ERROR_RATE in breached(evidence):
        cause_score.add_against(0.4, "errors and load rose together: its callers may repeat failed calls")


def _score_borne(cause_score: CauseScore, load: SymptomIndicator, evidence: Evidence) -> None:
    """A load that the service had served at its usual level for minutes is not too much for it."""
    left = departure(evidence)
    points = points_of(evidence, load)
    since = [] if left is None else [value for at, value in points if at >= left.by]
    if left is None or not since:
        return
    now = median(since)
    shortly = [(at, value) for at, value in points if left.after - LATE <= at <= left.after]
    borne = [at for at, value in shortly if value >= now * _BORNE]
    least = _FILLS if load is TRAFFIC else SERVED_LONG
    if len(borne) >= _BORNE_SAMPLES and left.after - borne[0] >= least:
        cause_score.add_against(
            0.7,
            f"{load.in_words(now)} had been served at the usual level for {span(left.after - borne[0])}",
        )


def _score_callers(cause_score: CauseScore, load: SymptomIndicator, surge: Rise, evidence: Evidence) -> None:
    """A caller that was changed as the load rose may call more often, which replicas do not put right."""
    left = departure_of(evidence, load)
    rose = surge.at if left is None else left.by
    changed = [c for c in evidence.changes if c.key in evidence.callers and rose - _BY_CALLER <= c.at <= rose]
    if changed:
        last = max(changed, key=lambda c: c.at)
        when = relative(last.at, rose, "the load rose")
        cause_score.add_against(0.6, f"{last.key.service}, which calls it, changed {when}: {last.summary}")


def _score_changes(cause_score: CauseScore, evidence: Evidence) -> None:
    began = metric_onset(evidence)
    candidate_changes = (
        release_of(evidence),
        template_config_of(evidence),
        config_map_of(evidence),
        reported_config_of(evidence),
    )
    times = [
        (s.at, s.what)
        for s in candidate_changes
        if s is not None and s.recent and s.at < began and not _cleared(s, evidence)
    ]
    others = own_changes(evidence, ChangeKind.FLAG, ChangeKind.SCALE, ChangeKind.CONFIG)
    times += [(c.at, c.summary) for c in others if began - LOOKBACK <= c.at < began]
    if not times:
        return
    at, what = max(times)
    close = abs(began - at) <= SOON
    cause_score.add_against(
        0.4 if close else 0.1, f"{what} was {span(began - at)} before the incident started"
    )


def _cleared(change: CandidateChange, evidence: Evidence) -> bool:
    """Whether the pods with a change had served at the usual level for long when the symptom began."""
    served = served_well_for(change, evidence)
    return served is not None and served >= SERVED_LONG


def _score_use(cause_score: CauseScore, evidence: Evidence) -> None:
    """Evidence that more replicas would not help, or would cause harm."""
    down = [one.service for one in unhealthy_dependencies(evidence)]
    if down:
        cause_score.add_against(
            0.6, f"{', '.join(down)}, a dependency, is unhealthy: more replicas would increase its load"
        )
    together = failing_together(evidence, unknown_too=True)
    if together:
        cause_score.add_against(
            0.5, f"{', '.join(together)} began to fail at the same moment: what they share may be saturated"
        )
    found = fault_counts(evidence.workload.pods, evidence) if evidence.workload is not None else None
    if found is not None and found.total() > found[PodFault.NOT_READY] + found[PodFault.OUT_OF_MEMORY]:
        cause_score.add_against(0.5, f"{found.total()} of its pods have faults that load does not cause")


def _score_autoscaler(cause_score: CauseScore, evidence: Evidence) -> None:
    """An autoscaler at its maximum confirms that the load exceeds what may run."""
    scalers = () if evidence.workload is None else evidence.workload.autoscalers
    full = next((one for one in scalers if one.at_maximum), None)
    if full is not None:
        cause_score.add_for(0.3, f"{full} is at its maximum of {full.maximum} replicas")
