"""The Warning events about a workload, and what the cluster says about pods that it does not make. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from app.agent.ids import JsonObject
from app.agent.workload import WarningView
from app.connectors.kubernetes.fields import condition_of, created_at, moment, number, text
from app.redaction import redacted

_CHARACTERS = 300


def sentence(said: str) -> str:
    """What the cluster said, redacted, on one line and of bounded length."""
    return " ".join(redacted(said).split())[:_CHARACTERS]


def warnings_by_object(events: Iterable[JsonObject]) -> dict[str, tuple[WarningView, ...]]:
    """The Warning events by the uid of the object they are about, newest first, repeats folded."""
    found: dict[str, dict[tuple[str, str], WarningView]] = {}
    for event in events:
        about = found.setdefault(text(event, "involvedObject", "uid") or "", {})
        reason, message = text(event, "reason") or "Warning", sentence(text(event, "message") or "")
        before = about.get((reason, message))
        about[reason, message] = WarningView(
            reason=reason,
            message=message,
            count=_count(event) + (before.count if before is not None else 0),
            at=max(_reported_at(event), before.at) if before is not None else _reported_at(event),
        )
    return {
        uid: tuple(sorted(about.values(), key=lambda one: one.at, reverse=True))
        for uid, about in found.items()
    }


def lines_of(warnings: Iterable[WarningView]) -> tuple[str, ...]:
    """Each distinct warning once as `reason: message`, newest first."""
    told: dict[str, datetime] = {}
    for one in warnings:
        line = f"{one.reason}: {one.message}"[:_CHARACTERS]
        told[line] = max(told.get(line, one.at), one.at)
    return tuple(sorted(told, key=lambda line: told[line], reverse=True))


def replica_failure(deployment: JsonObject) -> str | None:
    """Why pods cannot be made: what a ReplicaSet's controller was answered, by quota or admission."""
    condition = condition_of(deployment, "ReplicaFailure")
    if text(condition, "status") != "True":
        return None
    return sentence(f"{text(condition, 'reason') or 'ReplicaFailure'}: {text(condition, 'message') or ''}")


def _count(event: JsonObject) -> int:
    return max(1, number(event, "series", "count") or number(event, "count") or 1)


def _reported_at(event: JsonObject) -> datetime:
    return (
        moment(event, "series", "lastObservedTime")
        or moment(event, "lastTimestamp")
        or moment(event, "eventTime")
        or created_at(event)
    )
