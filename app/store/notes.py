"""Timeline entries and summaries written by the store: how a signal opened or joined an incident.

Pure. Each sentence carries its figures as data, so that no reader has to
parse it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.agent.evidence.format import counted, milliseconds, share
from app.agent.freshness.memory import ALERTS_KEPT, FORGOTTEN_AFTER
from app.agent.ids import JsonObject, ServiceKey
from app.agent.models import (
    Alert,
    ClusterCondition,
    ConfigChange,
    Deploy,
    Intent,
    MetricSample,
    Note,
    Payload,
    Signal,
    Snapshot,
    Stage,
    Trigger,
)

_QUOTE_LIMIT = 300
"""Characters of foreign text that a sentence repeats; the signal itself keeps all."""

_MOST_SENDERS = 20

_TRIGGER_WORDS = {
    Trigger.DEPLOY_FAILED: "deploy failed",
    Trigger.HIGH_ERROR_RATE: "high error rate",
    Trigger.HIGH_LATENCY: "high latency",
    Trigger.CRASH_LOOP: "crash loop",
    Trigger.PODS_UNAVAILABLE: "pods unavailable",
    Trigger.BATCH_FAILED: "batch failed",
    Trigger.TELEMETRY_OUTAGE: "telemetry outage",
}


def opening_summary(key: ServiceKey, triggers: Sequence[Trigger]) -> str:
    """`payments-api in prod: deploy failed, crash loop`."""
    return f"{key}: {trigger_words(triggers) or 'no trigger'}"


def trigger_words(triggers: Sequence[Trigger]) -> str:
    return ", ".join(_TRIGGER_WORDS[trigger] for trigger in triggers)


def signal_note(signal: Signal, triggers: Sequence[Trigger], *, opened: bool) -> Note:
    """The timeline entry for a signal that opened or joined an incident."""
    meaning = f" ({trigger_words(triggers)})" if triggers else ""
    staleness = (
        f" Stale on arrival: observed at {signal.observed_at:%Y-%m-%d %H:%M:%S} UTC." if signal.stale else ""
    )
    said, figures = _described(signal.payload)
    return Note(
        at=signal.received_at,
        stage=Stage.OBSERVE,
        message=f"{'Opened' if opened else 'Joined'} by {signal.source}: {said}{meaning}.{staleness}",
        data={
            "signal_id": signal.id,
            "kind": signal.kind.value,
            "source": signal.source,
            "triggers": [trigger.value for trigger in triggers],
            "stale": signal.stale,
            "observed_at": signal.observed_at.isoformat(),
            **_sent_by([signal]),
            **figures,
        },
    )


def _sent_by(signals: Sequence[Signal]) -> JsonObject:
    """The senders, each once; empty for the agent's own observations."""
    senders = tuple(dict.fromkeys(signal.sender for signal in signals if signal.sender is not None))
    described: list[JsonObject] = [
        {"kind": one.kind.value, "name": one.name, "token_id": one.token_id, "address": one.address}
        for one in senders[:_MOST_SENDERS]
    ]
    return {"senders": [*described]} if described else {}


def pending_note(signals: Sequence[Signal], at: datetime) -> Note:
    """The timeline entry, made at `at`, for signals that waited for their breach to last; oldest first."""
    newest = signals[-1]
    said, figures = _described(newest.payload)
    count = len(signals)
    waited = f"{counted(count, 'earlier signal')}, received before the breach lasted long enough"
    return Note(
        at=max(at, newest.received_at),
        stage=Stage.OBSERVE,
        message=f"Joined by {waited}; the newest, from {newest.source}: {said}.",
        data={
            "signal_ids": [signal.id for signal in signals[-20:]],
            "signals": count,
            "kind": newest.kind.value,
            "source": newest.source,
            "stale": all(signal.stale for signal in signals),
            "observed_at": newest.observed_at.isoformat(),
            **_sent_by(signals),
            **figures,
        },
    )


def merged_note(triggers: frozenset[Trigger], at: datetime) -> Note:
    """The timeline entry for alerts that are merged from then on."""
    return Note(
        at=at,
        stage=Stage.OBSERVE,
        message=f"More than {ALERTS_KEPT} alerts of the service were reported firing at once. The oldest of "
        "them are merged: no action is taken on them, and the service does not count as "
        "recovered until they are resolved or were not reported for "
        f"{FORGOTTEN_AFTER.total_seconds() / 3600:.0f} h.",
        data={"alerts_kept": ALERTS_KEPT, "triggers": [*sorted(trigger.value for trigger in triggers)]},
    )


def begin_note(intent: Intent, snapshot: Snapshot | None, at: datetime) -> Note:
    """The entry written before an effect; if nothing follows it, the process crashed."""
    on = f" on {intent.action.target}" if intent.action.target is not None else ""
    return Note(
        at=at,
        stage=Stage.UNDO if intent.undoes is not None else Stage.EXECUTE,
        message=f"Starting: {intent.action.words}{on}.",
        data={
            "intent_id": intent.id,
            "action": intent.action.name.value,
            "target": None if intent.action.target is None else str(intent.action.target),
            "target_token": None if snapshot is None else snapshot.token,
            "undoes": intent.undoes,
        },
    )


def retry_note(intent: Intent, at: datetime) -> Note:
    """The entry written before a second attempt at an effect that an interruption prevented."""
    return Note(
        at=at,
        stage=Stage.UNDO if intent.undoes is not None else Stage.EXECUTE,
        message=f"Attempt {intent.attempts} at {intent.action.words}: the first was interrupted, "
        "and the target shows that it had no effect.",
        data={"intent_id": intent.id, "attempts": intent.attempts},
    )


def _described(payload: Payload) -> tuple[str, JsonObject]:
    """The content of a payload, in words and as figures."""
    match payload:
        case Deploy():
            figures: JsonObject = {"version": payload.version, "status": payload.status.value}
            if payload.commit_sha is not None:
                figures["commit_sha"] = payload.commit_sha
            if payload.irreversible:
                figures["irreversible"] = True
            return f"deploy of {_quoted(payload.version)} {payload.status.value}", figures
        case MetricSample():
            return _sample(payload)
        case Alert():
            over = "no longer listed by its source" if payload.polled or payload.withheld else "resolved"
            state = "firing" if payload.firing else over
            detail = f", {_quoted(payload.summary)}" if payload.summary else ""
            return f"alert {_quoted(payload.name)} is {state}{detail}", {
                "alert": payload.name,
                "firing": payload.firing,
                "starts_at": payload.starts_at.isoformat(),
            }
        case ClusterCondition():
            verb = "reports" if payload.present else "no longer reports"
            detail = f", {_quoted(payload.message)}" if payload.message else ""
            return f"the cluster {verb} {payload.condition.value}{detail}", {
                "condition": payload.condition.value,
                "present": payload.present,
                "revision": payload.revision,
            }
        case ConfigChange():
            return f"{payload.kind.value} changed, {_quoted(payload.summary)}", {
                "change": payload.kind.value,
                "revision": payload.revision,
            }


def _sample(sample: MetricSample) -> tuple[str, JsonObject]:
    parts: list[str] = []
    figures: JsonObject = {}
    if sample.error_rate is not None:
        parts.append(f"error rate {share(sample.error_rate)}")
        figures["error_rate"] = sample.error_rate
    if sample.p95_latency_ms is not None:
        parts.append(f"p95 latency {milliseconds(sample.p95_latency_ms)}")
        figures["p95_latency_ms"] = sample.p95_latency_ms
    if sample.request_rate is not None:
        parts.append(f"{sample.request_rate:.1f} requests/s")
        figures["request_rate"] = sample.request_rate
    if sample.crash_looping is not None:
        parts.append("crash looping" if sample.crash_looping else "not crash looping")
        figures["crash_looping"] = sample.crash_looping
    return ", ".join(parts) or "a sample without data", figures


def _quoted(text: str) -> str:
    """Foreign text on one line, cut to a length that leaves the sentence readable."""
    line = " ".join(text.split())
    return line if len(line) <= _QUOTE_LIMIT else line[: _QUOTE_LIMIT - 1] + "…"
