"""What the store writes into timelines by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.agent.ids import ServiceKey
from app.agent.models import (
    Alert,
    ChangeKind,
    ClusterCondition,
    Condition,
    ConfigChange,
    Deploy,
    DeployStatus,
    MetricSample,
    Payload,
    Stage,
    Trigger,
)
from app.store.notes import opening_summary, pending_note, signal_note
from tests.contract.store_values import signal

AT = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
KEY = ServiceKey(environment="prod", service="payments-api")


def test_a_summary_names_service_and_triggers() -> None:
    """Short enough for a list of incidents."""
    assert (
        opening_summary(KEY, [Trigger.DEPLOY_FAILED, Trigger.CRASH_LOOP])
        == "payments-api in prod: deploy failed, crash loop"
    )
    assert opening_summary(KEY, list(Trigger)).endswith(
        "high latency, crash loop, pods unavailable, batch failed, telemetry outage"
    )
    assert opening_summary(KEY, []) == "payments-api in prod: no trigger"


@pytest.mark.parametrize(
    ("payload", "said", "figures"),
    [
        (
            Deploy(version="1.15.0", status=DeployStatus.FAILED, commit_sha="d1e2f3a", irreversible=True),
            "deploy of 1.15.0 failed",
            {"version": "1.15.0", "status": "failed", "commit_sha": "d1e2f3a", "irreversible": True},
        ),
        (
            MetricSample(error_rate=0.13, p95_latency_ms=1450, crash_looping=True),
            "error rate 13.0%, p95 latency 1450 ms, crash looping",
            {"error_rate": 0.13, "p95_latency_ms": 1450, "crash_looping": True},
        ),
        (MetricSample(crash_looping=False), "not crash looping", {"crash_looping": False}),
        (MetricSample(), "a sample without data", {}),
        (
            Alert(
                name="HighErrorRate", firing=True, fingerprint="f", starts_at=AT, trigger=None, summary="13 %"
            ),
            "alert HighErrorRate is firing, 13 %",
            {"alert": "HighErrorRate", "firing": True, "starts_at": "2026-02-20T17:00:00+00:00"},
        ),
        (
            Alert(name="HighErrorRate", firing=False, fingerprint="f", starts_at=AT, trigger=None),
            "alert HighErrorRate is resolved",
            {"alert": "HighErrorRate", "firing": False, "starts_at": "2026-02-20T17:00:00+00:00"},
        ),
        (
            ClusterCondition(
                condition=Condition.OOM_KILLED, present=True, message="limit\n 64Mi", revision=4
            ),
            "the cluster reports OOMKilled, limit 64Mi",
            {"condition": "OOMKilled", "present": True, "revision": 4},
        ),
        (
            ClusterCondition(condition=Condition.OOM_KILLED, present=False, message=""),
            "the cluster no longer reports OOMKilled",
            {"condition": "OOMKilled", "present": False, "revision": None},
        ),
        (
            ConfigChange(summary="x" * 400, kind=ChangeKind.FLAG, revision=2),
            "flag changed, " + "x" * 299 + "…",
            {"change": "flag", "revision": 2},
        ),
    ],
)
def test_each_kind_of_signal_is_reported_in_a_sentence(
    payload: Payload, said: str, figures: dict[str, object]
) -> None:
    """The words give the report, the data carries the figures."""
    one = signal(payload, at=AT)
    entry = signal_note(one, [Trigger.HIGH_ERROR_RATE], opened=False)
    assert entry.message == f"Joined by http: {said} (high error rate)."
    assert entry.stage is Stage.OBSERVE
    assert entry.at == AT
    assert entry.data == {
        "signal_id": one.id,
        "kind": one.kind.value,
        "source": "http",
        "triggers": ["high_error_rate"],
        "stale": False,
        "observed_at": "2026-02-20T17:00:00+00:00",
        **figures,
    }


def test_an_old_signal_says_so() -> None:
    """A reader must see why nothing real will follow."""
    entry = signal_note(signal(at=AT, stale=True), [], opened=True)
    assert entry.message == (
        "Opened by http: deploy of 1.15.0 failed. Stale on arrival: observed at 2026-02-20 17:00:00 UTC."
    )
    assert entry.data["stale"] is True


def test_waiting_signals_are_reported_together() -> None:
    """One entry however many they were, with the newest one's figures."""
    many = [signal(MetricSample(error_rate=n / 100), at=AT) for n in range(1, 31)]
    entry = pending_note(many, AT)
    assert entry.message == (
        "Joined by 30 earlier signals, received before the breach lasted long enough;"
        " the newest, from http: error rate 30.0%."
    )
    assert entry.data["signals"] == 30
    assert entry.data["signal_ids"] == [one.id for one in many[-20:]]
    assert entry.data["error_rate"] == 0.3
    assert pending_note(many[:1], AT).message.startswith("Joined by 1 earlier signal, received")


def test_waiting_signals_do_not_stand_before_the_opening() -> None:
    """The timeline is in order: they joined when the incident opened, not when they were received."""
    opened = AT + timedelta(seconds=5)
    assert pending_note([signal(MetricSample(error_rate=0.2), at=AT)], opened).at == opened
