"""Histories that tempt the agent to act without a reason, and the checks that it does not.

Drawn by dice of their own, so that everything else in a seed is as it would be
without: a metric source that refuses one service, a service that hardly any client
calls, a release made by hand while an incident is open. The checks belong to the
promises about evidence (8 and 13).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING

from app.agent.ids import ServiceKey
from app.agent.models import (
    ActionName,
    IncidentRecord,
    IncidentState,
    SliSample,
    Trigger,
)
from tests.simulation.tape import HistoryAnswered, SliAnswered
from tests.simulation.world import FEW_REQUESTS, Ailment, service_key

if TYPE_CHECKING:
    from tests.simulation.scenario import Illness
    from tests.simulation.simulation import Case

MAX_ERROR_RATE = 0.05
SEVERITIES = ("page", "ticket")
"""What alerts are labelled with."""
_JUDGED_FROM = 0.2
_METRIC_TRIGGERS = frozenset({Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY})
_RECOVERIES = frozenset({IncidentState.RECOVERED, IncidentState.RECOVERED_WITHOUT_ACTION})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Something that holds for one service from one moment to another."""

    start: float
    end: float
    service: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mute:
    """People silence a service, or its alerts of one severity, in the monitoring."""

    stretch: Stretch
    severity: str | None
    """None: the whole service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """What tempts the agent in one seed; most seeds have some of it."""

    refusals: tuple[Stretch, ...] = ()
    """The metric source answers a question about the service with an error that lasts."""
    quiets: tuple[Stretch, ...] = ()
    """The service has hardly any requests."""
    hand_releases: tuple[Stretch, ...] = ()
    """`start` is when a person releases a version by hand, with the incident open."""
    mutes: tuple[Mute, ...] = ()

    @classmethod
    def of(cls, seed: int, illnesses: tuple[Illness, ...], until: float) -> Hostile:
        dice = Random(f"evidence/{seed}")  # noqa: S311 - a seed, no secret
        refusals, quiets, hand_releases = [], [], []
        for illness in illnesses:
            soon = illness.at + dice.uniform(0, 15)
            stretch = Stretch(start=soon, end=soon + dice.uniform(20, 60), service=illness.service)
            kind = dice.random()
            if kind < 0.15:
                refusals.append(stretch)
            elif kind < 0.3:
                quiets.append(stretch)
            if illness.ailment is Ailment.MYSTERY and dice.random() < 0.7:
                at = illness.at + dice.uniform(30, 45)
                hand_releases.append(Stretch(start=at, end=at, service=illness.service))
        return cls(
            refusals=tuple(refusals),
            quiets=tuple(quiets),
            hand_releases=tuple(hand_releases),
            mutes=_mutes(seed, illnesses, until),
        )


def _mutes(seed: int, illnesses: tuple[Illness, ...], until: float) -> tuple[Mute, ...]:
    """In some seeds, about half of the illnesses; all are over when the faults are."""
    dice = Random(f"mutes/{seed}")  # noqa: S311 - a seed, no secret
    if dice.random() >= 0.25:
        return ()
    found = []
    for illness in illnesses:
        start = illness.at + dice.uniform(-5, 15)
        stretch = Stretch(start=start, end=min(until, start + dice.uniform(15, 60)), service=illness.service)
        if dice.random() < 0.6:
            found.append(Mute(stretch=stretch, severity=dice.choice((None, None, *SEVERITIES))))
    return tuple(found)


# ---------------------------------------------------------------- checks


def own_measurement_outranks(case: Case) -> Iterator[str]:
    """No plan for a symptom that was measured, at that moment, inside its objective or on no traffic."""
    measured = _measured(case)
    for record in _planned(case):
        incident = record.incident
        assert incident.plan is not None
        sample = measured.get((incident.key, incident.plan.at))
        if sample is None or not _METRIC_TRIGGERS.issuperset(incident.triggers):
            continue
        rate, traffic = sample.error_rate, sample.request_rate
        if traffic is not None and traffic < _JUDGED_FROM:
            yield f"{incident.id} was planned for on {traffic} requests/s"
        elif rate is not None and rate <= MAX_ERROR_RATE and Trigger.HIGH_LATENCY not in incident.triggers:
            yield f"{incident.id} was planned for although its error rate was measured at {rate:.1%}"


def no_verdict_on_a_handful(case: Case) -> Iterator[str]:
    """No recovery from errors is declared while the service has hardly any requests."""
    measured = _measured(case)
    for record in case.records:
        incident, verdict = record.incident, record.incident.verdict
        if incident.state not in _RECOVERIES or verdict is None:
            continue
        sample = measured.get((incident.key, verdict.at))
        few = sample is not None and sample.request_rate is not None and sample.request_rate < _JUDGED_FROM
        if few and Trigger.HIGH_ERROR_RATE in incident.triggers:
            yield f"{incident.id} was judged recovered on {FEW_REQUESTS} requests/s"


def failing_to_measure_is_no_reason(case: Case) -> Iterator[str]:
    """No plan is made at a moment at which the metric source refused the service."""
    refused = {(a.key, a.asked_at) for a in case.tape.of(HistoryAnswered) if a.refused}
    answered = {(a.key, a.asked_at) for a in case.tape.of(HistoryAnswered) if not a.refused}
    for record in _planned(case):
        assert record.incident.plan is not None
        moment = (record.incident.key, record.incident.plan.at)
        if moment in refused - answered:
            yield f"{record.incident.id} was planned for while its service could not be measured"


def later_changes_are_no_cause(case: Case) -> Iterator[str]:
    """A release made by hand while the incident was open is not rolled back for what came before it."""
    scenario = case.scenario
    blind = {s.number for s in scenario.silences} | {s.service for s in scenario.hostile.refusals}
    if None in blind or scenario.outages:
        return  # the onset may not have been seen
    services = {service_key(h.service): h for h in scenario.hostile.hand_releases if h.service not in blind}
    for record in _planned(case):
        plan = record.incident.plan
        assert plan is not None
        if record.incident.key in services and any(a.name is ActionName.ROLLBACK for a in plan.actions):
            yield f"{record.incident.id} would roll back the release that came after its onset"


def _planned(case: Case) -> Iterator[IncidentRecord]:
    return (r for r in case.records if r.incident.plan is not None and r.incident.plan.actions)


def _measured(case: Case) -> dict[tuple[ServiceKey, datetime], SliSample]:
    return {(a.key, a.asked_at): a.sample for a in case.tape.of(SliAnswered) if a.sample is not None}
