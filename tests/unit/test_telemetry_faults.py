"""Which faults of a source are reported, and when: once, after they lasted, and once when they are over."""

from __future__ import annotations

from datetime import timedelta

from app.agent.ids import ServiceKey
from app.agent.models import (
    CLUSTER_SOURCE,
    METRICS_SOURCE,
    SliSample,
    Trigger,
)
from app.connectors.observability import Polled
from app.errors import AgentError, Invalid, TransientError
from app.workers.telemetry_reporter import TelemetryFaults
from tests.unit.scenes import at

MINUTE = timedelta(minutes=1)
KEYS = tuple(ServiceKey(environment="prod", service=f"s{n}") for n in range(5))


def answers(*failing: AgentError, silent: int = 0) -> list[Polled]:
    """The first services fail as given, the last ones are silent, the others have data."""
    found: list[Polled] = [(key, SliSample(at=at(0), error_rate=0.0)) for key in KEYS]
    for number, error in enumerate(failing):
        found[number] = (KEYS[number], error)
    for number in range(len(KEYS) - silent, len(KEYS)):
        found[number] = (KEYS[number], SliSample(at=at(0)))
    return found


def test_a_fault_is_reported_once_and_so_is_its_end() -> None:
    """However many rounds it lasts; what could not be delivered is delivered in the next round."""
    faults = TelemetryFaults()
    assert faults.changed(METRICS_SOURCE, "403", at(0), MINUTE) is None
    alert = faults.changed(METRICS_SOURCE, "403", at(1), MINUTE)
    assert alert is not None
    assert (alert.firing, alert.trigger, alert.summary) == (True, Trigger.TELEMETRY_OUTAGE, "403")
    assert faults.changed(METRICS_SOURCE, "403", at(2), MINUTE) == alert
    faults.delivered(METRICS_SOURCE, alert)
    assert faults.changed(METRICS_SOURCE, "503", at(3), MINUTE) is None
    assert faults.changed(CLUSTER_SOURCE, None, at(3), MINUTE) is None
    ended = faults.changed(METRICS_SOURCE, None, at(4), MINUTE)
    assert ended is not None
    assert (ended.firing, ended.fingerprint, ended.starts_at) == (
        False,
        alert.fingerprint,
        alert.starts_at,
    )
    faults.delivered(METRICS_SOURCE, ended)
    assert faults.changed(METRICS_SOURCE, None, at(5), MINUTE) is None
    assert faults.changed(METRICS_SOURCE, "403", at(6), MINUTE) is None


def test_a_round_is_a_fault_by_what_its_answers_mean() -> None:
    """One answer that will not get better, or more than half of all without one."""
    faults = TelemetryFaults()
    late, wrong = TransientError("no answer in time"), Invalid("2 series where one is meant")
    assert faults.in_round(answers(), at(0)) is None
    assert faults.in_round(answers(late, late), at(1)) is None
    assert faults.in_round(answers(late, late, late), at(2)) is not None
    told = faults.in_round(answers(wrong), at(3))
    assert told == "1 of 5 services have no metrics: 2 series where one is meant"
    assert faults.in_round([], at(4)) is None


def test_silence_is_a_fault_when_more_than_half_fall_silent_together() -> None:
    """And for as long as it lasts; a service that never had data is not silent."""
    faults = TelemetryFaults()
    assert faults.in_round(answers(silent=5), at(0)) is None
    assert faults.in_round(answers(), at(1)) is None
    assert faults.in_round(answers(silent=2), at(2)) is None
    told = faults.in_round(answers(silent=4), at(3))
    assert told == "4 of 5 services fell silent together"
    faults.changed(METRICS_SOURCE, told, at(3), MINUTE)
    assert faults.in_round(answers(silent=4), at(60)) == told
    assert faults.in_round(answers(), at(61)) is None
