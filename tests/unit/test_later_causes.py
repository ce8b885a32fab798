"""Every cause is stored so that a program of the version before can read the incident."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import Cause, Diagnosis, Hypothesis, Incident, IncidentState, Lesson
from app.store.database.codec import IncidentBody, fields_of, incident_body, read, read_incident_body

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
KNOWN_TO_0_2_0 = frozenset(
    {
        "admission_refusal",
        "bad_config",
        "bad_release",
        "dependency_failure",
        "irreversible_release",
        "memory_leak",
        "missing_configuration",
        "node_failure",
        "probe_failure",
        "registry_failure",
        "resource_limit",
        "scaled_to_zero",
        "scheduling_failure",
        "storage_failure",
        "telemetry_outage",
        "traffic_surge",
        "unknown",
    }
)
ENABLED_AFTER_THE_UPGRADE = frozenset({Cause.BATCH_FAILURE})
"""Found only with a setting that is off by default, see docs/workers.md."""


def incident(*causes: Cause) -> Incident:
    found = tuple(Hypothesis(cause=one, confidence=0.9, rule="test", evidence_for=("x",)) for one in causes)
    return Incident(
        id=IncidentId("inc_1"),
        key=ServiceKey(environment="prod", service="shop"),
        state=IncidentState.ESCALATED,
        opened_at=NOW,
        triggers=(),
        stale=False,
        dry_run=False,
        diagnosis=Diagnosis(hypotheses=found, at=NOW),
        lesson=Lesson(
            cause=causes[0],
            runbook=None,
            actions=(),
            worked=None,
            recovered_alone=False,
            seconds_to_recover=None,
            at=NOW,
        ),
    )


@pytest.mark.parametrize("cause", sorted(set(Cause) - ENABLED_AFTER_THE_UPGRADE))
def test_a_cause_is_one_that_the_version_before_knows(cause: Cause) -> None:
    """In every hypothesis, the last one too, and in the lesson; and it is read back as it was."""
    given = incident(cause, Cause.BAD_RELEASE, cause)
    body = incident_body(given)
    stored = [*body["diagnosis"]["hypotheses"], body["lesson"]]
    assert {one["cause"] for one in stored} <= KNOWN_TO_0_2_0
    assert fields_of(IncidentBody, read_incident_body(body)) == fields_of(IncidentBody, given)


def test_what_an_older_program_wrote_over_it_stays_unknown() -> None:
    """It keeps the evidence, and drops the field that it does not know."""
    body = incident_body(incident(Cause.NETWORK_POLICY))
    for one in (*body["diagnosis"]["hypotheses"], body["lesson"]):
        del one["later_cause"]
    diagnosis = read_incident_body(body).diagnosis
    assert diagnosis is not None
    assert diagnosis.best.cause is Cause.UNKNOWN


@pytest.mark.parametrize("named", ["from_a_later_version", 7, None, ["x"]])
def test_a_name_that_is_not_known_here_counts_as_unknown(named: object) -> None:
    """A still later version wrote it."""
    body = incident_body(incident(Cause.NETWORK_POLICY))
    for one in (*body["diagnosis"]["hypotheses"], body["lesson"]):
        one["later_cause"] = named
    assert read_incident_body(body) == read(IncidentBody, body)
