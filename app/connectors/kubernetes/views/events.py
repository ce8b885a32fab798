"""The Warning events about a workload, and what the cluster says about pods that it does not make. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.ids import JsonObject
from app.agent.workload import WarningView
from app.connectors.kubernetes.fields import condition_of, created_at, moment, number, text, uid
from app.redaction import redacted

_CHARACTERS = 300
_FAILED_CREATE = "FailedCreate"
_REPEATED_WITHIN = timedelta(minutes=20)
"""A controller tries again after 17 minutes at the latest."""


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
        involved: tuple(sorted(about.values(), key=lambda one: one.at, reverse=True))
        for involved, about in found.items()
    }


def lines_of(warnings: Iterable[WarningView]) -> tuple[str, ...]:
    """Each distinct warning once as `reason: message`, newest first."""
    newest: dict[str, datetime] = {}
    for one in warnings:
        line = f"{one.reason}: {one.message}"[:_CHARACTERS]
        newest[line] = max(newest.get(line, one.at), one.at)
    return tuple(sorted(newest, key=lambda line: newest[line], reverse=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class PodsRefused:
    """The cluster does not make pods that a workload wants."""

    why: str
    """`FailedCreate: ...`, by quota or admission."""
    since: datetime | None
    """None where the cluster does not say."""


def pods_refused(
    events: Iterable[JsonObject], workload: JsonObject, *, missing: int, at: datetime
) -> PodsRefused | None:
    """By its condition `ReplicaFailure`; the kinds that have none report it in events.

    An event counts while the workload has `missing` pods and it was repeated recently.
    """
    condition = condition_of(workload, "ReplicaFailure")
    if text(condition, "status") == "True":
        why = f"{text(condition, 'reason') or 'ReplicaFailure'}: {text(condition, 'message') or ''}"
        return PodsRefused(why=sentence(why), since=moment(condition, "lastTransitionTime"))
    own = uid(workload)
    reported = [
        event
        for event in events
        if text(event, "involvedObject", "uid") == own
        and text(event, "reason") == _FAILED_CREATE
        and at - _reported_at(event) <= _REPEATED_WITHIN
    ]
    if missing <= 0 or not reported:
        return None
    newest = max(reported, key=_reported_at)
    since = min(moment(event, "firstTimestamp") or _reported_at(event) for event in reported)
    return PodsRefused(why=sentence(f"{_FAILED_CREATE}: {text(newest, 'message') or ''}"), since=since)


def _count(event: JsonObject) -> int:
    return max(1, number(event, "series", "count") or number(event, "count") or 1)


def _reported_at(event: JsonObject) -> datetime:
    return (
        moment(event, "series", "lastObservedTime")
        or moment(event, "lastTimestamp")
        or moment(event, "eventTime")
        or created_at(event)
    )
