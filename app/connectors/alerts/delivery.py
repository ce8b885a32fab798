"""Alerts of any format as signals. Pure.

An alert format reads its body into `AlertEntry`s; everything after that is the same
for all of them. One alert is fingerprint + start + status: a repeated delivery is the
same signal twice, a re-fire is a new one. An alert that cannot be read or mapped is
reported beside the others.

The watchdog alert (WATCHDOG_ALERT) is about no service: it shows that deliveries arrive.
Any other alert is about the service that its labels name, the first of these that is
there: `service`, `service_name`, `app_kubernetes_io_name`, `app`, `deployment`
(or `statefulset`, `daemonset`, `rollout`), `pod` (the workload behind the pod), `job`.
`app.connectors.alerts.labels` says which spellings count, whose labels are set aside,
and how the environment follows from namespace, environment and cluster. Where
`SERVICE_WORKLOADS` names the workload, that service wins.

Staleness is judged by delivery: a sender repeats what is true now, so an alert that
has been firing for hours is as current as one that began this second. An alert that
resolved long ago opens nothing anyway.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from pydantic import SecretStr

from app.agent.ids import JsonObject
from app.agent.intake.signals import new_signal
from app.agent.models import ALERTS_SOURCE, Alert, Signal, Trigger
from app.config import Settings
from app.connectors.alerts.labels import (
    Owners,
    PodRef,
    Unmapped,
    cluster_of,
    pod_to_ask,
    service_of,
)
from app.connectors.text import shorten
from app.redaction import cut

TRIGGER_LABEL = "heal_trigger"

_FINGERPRINT = re.compile("[0-9a-fA-F]{1,64}")
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_NEVER_STALE = timedelta.max
_MAX_SUMMARY = 500
_MAX_LABELS = 64
_MAX_LABEL_CHARACTERS = 2_000
"""Names and values together: more is not kept with the reason that the alert is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertEntry:
    """One alert with every field in a form that can be used."""

    name: str
    firing: bool
    labels: Mapping[str, str]
    fingerprint: str
    """The sender's own, or `fingerprint_of` the labels."""
    starts_at: datetime
    ends_at: datetime | None = None
    summary: str = ""
    suppressed: bool = False
    """It fires, and the sender has silenced or inhibited it."""
    telemetry: bool = False
    """It fires because its rule had no data or failed, and not because its condition is met."""
    cycle: str | None = None
    """Links a start to its end where the sender gives each message a time of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmappedAlert:
    """An alert that became no signal, and what would have to change for it to become one."""

    fingerprint: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint}): {self.reason}" if self.fingerprint else self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertBatch:
    """One delivery, taken apart."""

    signals: tuple[Signal, ...]
    unmapped: tuple[UnmappedAlert, ...]
    """Also holds one entry without a fingerprint when the sender itself left alerts out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDelivery:
    """One delivery, read: its alerts in order, and what could not be read."""

    source: str
    """The name of the format: what its signals give as their source."""
    entries: tuple[AlertEntry | UnmappedAlert, ...]
    left_out: str = ""
    """Why the sender left alerts out, and how to get them; empty where it left none out."""

    def pods_to_ask(self, settings: Settings) -> tuple[PodRef, ...]:
        """The pods whose owners name services, in order and without repeats."""
        found = (pod_to_ask(one.labels, settings) for one in self.entries if isinstance(one, AlertEntry))
        return tuple(dict.fromkeys(pod for pod in found if pod is not None))

    def batch(self, *, settings: Settings, received_at: datetime, owners: Owners | None = None) -> AlertBatch:
        """The signals of the alerts that name a service; the others with a reason."""
        signals: list[Signal] = []
        unmapped: list[UnmappedAlert] = []
        for one in self.entries:
            if isinstance(one, UnmappedAlert):
                unmapped.append(one)
                continue
            try:
                signals.append(self._signal(one, settings, received_at, owners))
            except Unmapped as reason:
                unmapped.append(UnmappedAlert(fingerprint=one.fingerprint, name=one.name, reason=str(reason)))
        if self.left_out:
            unmapped.append(UnmappedAlert(fingerprint="", name="", reason=self.left_out))
        return AlertBatch(signals=tuple(signals), unmapped=tuple(unmapped))

    def _signal(
        self, alert: AlertEntry, settings: Settings, received_at: datetime, owners: Owners | None
    ) -> Signal:
        starts_at = _starts_at(alert, received_at, timedelta(seconds=settings.signal_max_future_seconds))
        status = "telemetry" if alert.telemetry and alert.firing else "firing" if alert.firing else "resolved"
        if alert.suppressed:
            status = "suppressed"
        cycle = alert.cycle or starts_at.isoformat()
        watchdog = alert.name == settings.watchdog_alert
        return new_signal(
            key=ALERTS_SOURCE if watchdog else service_of(alert.labels, settings, owners),
            source=self.source,
            observed_at=min(starts_at, received_at)
            if alert.firing or alert.suppressed
            else _ended_at(alert, starts_at, received_at),
            received_at=received_at,
            payload=Alert(
                name=alert.name,
                firing=alert.firing,
                fingerprint=alert.fingerprint,
                starts_at=starts_at,
                trigger=None if alert.telemetry or watchdog else _trigger(alert, settings),
                summary=shorten(alert.summary, _MAX_SUMMARY),
                telemetry=alert.telemetry,
                suppressed=alert.suppressed,
                cluster=cluster_of(alert.labels, settings),
                labels=_kept(alert.labels),
                cycle=alert.cycle,
            ),
            stale_after=_NEVER_STALE,
            dedup_key=f"{self.source}:{alert.fingerprint.lower()}:{cycle}:{status}",
        )


def fingerprint_of(given: object, labels: Mapping[str, str]) -> str:
    """The sender's own, or one made of the labels, which are what identifies an alert."""
    if isinstance(given, str) and _FINGERPRINT.fullmatch(given):
        return given
    written = json.dumps([sorted(labels.items()), given if isinstance(given, str) else ""])
    return hashlib.sha256(written.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _kept(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...] | None:
    """All labels, for silences to be matched with; None where they are too long to be kept.

    Of a value with a credential in it, or an address with a query, a part is kept.
    """
    if len(labels) > _MAX_LABELS or sum(len(k) + len(v) for k, v in labels.items()) > _MAX_LABEL_CHARACTERS:
        return None
    return tuple(sorted((name, cut(value)) for name, value in labels.items()))


def _starts_at(alert: AlertEntry, received_at: datetime, tolerance: timedelta) -> datetime:
    starts_at = _utc(alert.starts_at)
    if starts_at is None or starts_at < _EARLIEST:
        raise Unmapped(f"startsAt is {alert.starts_at.isoformat()}, which is not a start time")
    if starts_at - received_at > tolerance:
        raise Unmapped(
            f"startsAt {starts_at.isoformat()} is in the future; check the clocks of the sender and the agent"
        )
    return starts_at


def _ended_at(alert: AlertEntry, starts_at: datetime, received_at: datetime) -> datetime:
    """When a resolved alert ended: never before it began, never after it was reported."""
    ends_at = _utc(alert.ends_at) if alert.ends_at is not None else None
    if ends_at is None or ends_at < starts_at:
        return received_at
    return min(ends_at, received_at)


def _utc(at: datetime) -> datetime | None:
    """None at the edges of the calendar, where the year 1 of a missing time has no UTC in every zone."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        return None


def _trigger(alert: AlertEntry, settings: Settings) -> Trigger | None:
    asked = alert.labels.get(TRIGGER_LABEL, "")
    known = ", ".join(one for one in Trigger if one is not Trigger.BATCH_FAILED)
    try:
        found = Trigger(asked) if TRIGGER_LABEL in alert.labels else settings.alert_triggers.get(alert.name)
    except ValueError:
        raise Unmapped(f"label {TRIGGER_LABEL} is {shorten(asked, 80)!r}; use one of {known}") from None
    if found is Trigger.BATCH_FAILED:
        raise Unmapped(f"a failed Job is not an outage of a service; use one of {known}, or WATCH_JOBS=true")
    return found


# ------------------------------------------------------------------ what a format registers


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryToken:
    """The setting with which a format's sender authenticates, besides API tokens."""

    setting: str
    of: Callable[[Settings], SecretStr | None]
    placed: str
    """Where the sender is configured with the same value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What another sender of a format changes in it."""

    title: str
    """How the sender is called in text."""
    payload: str
    """Which of its messages it is, such as `a webhook contact point`."""
    versions: tuple[str, ...]
    """The values of the format's `version`."""
    telemetry: Callable[[AlertEntry, Mapping[str, str]], bool]
    """Whether an alert, given with its annotations, is about missing data."""


Reader: TypeAlias = Callable[[object], AlertDelivery]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFormat:
    """One registered alert format: the route `POST /webhooks/NAME`, its description and its reader."""

    name: str
    """Of the route, and the source of its signals."""
    title: str
    """How the senders are called in text."""
    summary: str
    """The title of the route in the API reference."""
    payload: str
    """What the body is, for the API reference."""
    expected: str
    """What to send, with an example."""
    fix: str
    """What to change on the sender where the body is something else."""
    schema: JsonObject
    """The body as JSON Schema, as far as it is read."""
    read: Reader
    """The alerts of one decoded body; raises `Invalid`, naming the field and the fix."""
    is_delivery: Callable[[object], bool]
    """Whether a decoded body holds alerts, so that one odd character must not cost all of them."""
    token: DeliveryToken | None = None
    """None: API tokens only."""
