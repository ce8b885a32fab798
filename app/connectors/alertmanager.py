"""Deliveries of Alertmanager (webhook version 4) as signals. Pure.

Called by the webhook router. One alert is fingerprint + startsAt + status: a
repeated delivery is the same signal told twice, a re-fire is a new one.

An alert is about the service that its labels name, the first of these that is
there: `service`, `app_kubernetes_io_name`, `app`, `deployment`, `pod` (the
Deployment that a pod's name tells of), `job`. A label `exported_x` stands before
`x`, because Prometheus renames what the metric itself said; a value that names
an exporter (kube-state-metrics and the like) is about the messenger, and is
passed over. Where `SERVICE_WORKLOADS` names the Deployment, that service wins.
The environment is the label `environment` or `env`, else the one that
`ENVIRONMENT_NAMESPACES` gives for the label `namespace`, else the namespace.

Staleness is judged by delivery: Alertmanager repeats what is true now, so an
alert that has been firing for hours is as current as one that began this second.
An alert that resolved long ago opens nothing anyway.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec

from app.agent.models import Alert, ServiceKey, Signal, Trigger
from app.agent.observer import new_signal
from app.config import Settings
from app.connectors.text import shorten
from app.errors import Invalid

SERVICE_LABELS = ("service", "app_kubernetes_io_name", "app", "deployment", "pod", "job")
ENVIRONMENT_LABELS = ("environment", "env")
TRIGGER_LABEL = "heal_trigger"

_EXPORTERS = re.compile(
    r"(?:.*[-/])?(?:kube-state-metrics|node-exporter|cadvisor|kubelet|prometheus-operator)"
)
_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
# A pod's name is Deployment, template hash and suffix, both in an alphabet without vowels.
_POD = re.compile(r"(?P<deployment>.+)-[bcdf0-9ghjklmnpqrstvwxz]{6,10}-[bcdf0-9ghjklmnpqrstvwxz]{5}")
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_NEVER_STALE = timedelta.max
_MAX_SUMMARY = 500

_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_Fingerprint = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{1,64}$")]


class _Alert(msgspec.Struct, rename="camel"):
    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    starts_at: _Time
    fingerprint: _Fingerprint
    ends_at: _Time | None = None
    annotations: dict[str, str] = {}


class _Delivery(msgspec.Struct, rename="camel"):
    version: Literal["4"]
    alerts: list[_Alert]
    truncated_alerts: Annotated[int, msgspec.Meta(ge=0)] = 0


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
    """Also holds one entry without a fingerprint when Alertmanager itself left alerts out."""


class _Unmappable(Exception):
    """Why one alert cannot become a signal."""


def alerts_to_signals(payload: object, *, settings: Settings, received_at: datetime) -> AlertBatch:
    """The signals of one decoded delivery, in its order.

    Raises `Invalid`, naming the field and the mend, for what is no such
    delivery. An alert that cannot be mapped is reported beside the others,
    because refusing the delivery would make Alertmanager drop them all.
    """
    delivery = _decoded(payload)
    signals: list[Signal] = []
    unmapped: list[UnmappedAlert] = []
    for alert in delivery.alerts:
        name = shorten(alert.labels.get("alertname", ""), 200) or "unnamed alert"
        try:
            signals.append(_signal(alert, name, settings, received_at))
        except _Unmappable as reason:
            unmapped.append(UnmappedAlert(fingerprint=alert.fingerprint, name=name, reason=str(reason)))
    if delivery.truncated_alerts:
        unmapped.append(
            UnmappedAlert(
                fingerprint="",
                name="",
                reason=f"Alertmanager left {delivery.truncated_alerts} alerts out of this delivery; "
                "raise max_alerts of its webhook_config or set it to 0",
            )
        )
    return AlertBatch(signals=tuple(signals), unmapped=tuple(unmapped))


def _decoded(payload: object) -> _Delivery:
    try:
        return msgspec.convert(payload, _Delivery)
    except (msgspec.ValidationError, RecursionError) as error:
        problem, _, path = str(error).partition(" - at `")
        field = path.rstrip("`").removeprefix("$").removeprefix(".") or "body"
        raise Invalid(f"{shorten(field, 100)}: {shorten(problem)}; {_mend(field)}") from None


def _mend(field: str) -> str:
    if field.endswith(("startsAt", "endsAt")):
        return "send a time with an offset, such as 2026-02-20T17:00:00Z"
    if field == "version":
        return 'send webhook version "4", as every Alertmanager since 0.6 does'
    return "send the body of an Alertmanager webhook as Alertmanager writes it"


def _signal(alert: _Alert, name: str, settings: Settings, received_at: datetime) -> Signal:
    firing = alert.status == "firing"
    starts_at = _starts_at(alert, received_at, timedelta(seconds=settings.signal_max_future_seconds))
    return new_signal(
        key=_key(alert.labels, settings),
        source="alertmanager",
        observed_at=min(starts_at, received_at) if firing else _ended_at(alert, starts_at, received_at),
        received_at=received_at,
        payload=Alert(
            name=name,
            firing=firing,
            fingerprint=alert.fingerprint,
            starts_at=starts_at,
            trigger=_trigger(alert.labels, name, settings),
            summary=shorten(
                alert.annotations.get("summary") or alert.annotations.get("description", ""), _MAX_SUMMARY
            ),
        ),
        stale_after=_NEVER_STALE,
        dedup_key=f"alertmanager:{alert.fingerprint.lower()}:{starts_at.isoformat()}:{alert.status}",
    )


def _starts_at(alert: _Alert, received_at: datetime, tolerance: timedelta) -> datetime:
    starts_at = _utc(alert.starts_at)
    if starts_at is None or starts_at < _EARLIEST:
        raise _Unmappable(f"startsAt is {alert.starts_at.isoformat()}, which is not when an alert began")
    if starts_at - received_at > tolerance:
        raise _Unmappable(
            f"startsAt {starts_at.isoformat()} is in the future; check the clocks of Prometheus and the agent"
        )
    return starts_at


def _ended_at(alert: _Alert, starts_at: datetime, received_at: datetime) -> datetime:
    """When a resolved alert ended: never before it began, never after it was told."""
    ends_at = _utc(alert.ends_at) if alert.ends_at is not None else None
    if ends_at is None or ends_at < starts_at:
        return received_at
    return min(ends_at, received_at)


def _utc(at: datetime) -> datetime | None:
    """None at the edges of the calendar, where Alertmanager's year 1 has no UTC in every zone."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        return None


def _trigger(labels: Mapping[str, str], name: str, settings: Settings) -> Trigger | None:
    asked = labels.get(TRIGGER_LABEL)
    if asked is None:
        return settings.alert_triggers.get(name)
    try:
        return Trigger(asked)
    except ValueError:
        known = ", ".join(Trigger)
        raise _Unmappable(f"label {TRIGGER_LABEL} is {shorten(asked, 80)!r}; use one of {known}") from None


def _key(labels: Mapping[str, str], settings: Settings) -> ServiceKey:
    namespace = _label(labels, "namespace")
    for deployment in (_label(labels, "deployment"), _deployment_of(_label(labels, "pod"))):
        for written, place in settings.service_workloads.items():
            if deployment is not None and place == f"{namespace}/{deployment}":
                environment, _, service = written.partition("/")
                return ServiceKey(environment=environment, service=service)
    return ServiceKey(environment=_environment(labels, namespace, settings), service=_service(labels))


def _service(labels: Mapping[str, str]) -> str:
    for name in SERVICE_LABELS:
        value = _label(labels, name)
        if value is None or _EXPORTERS.fullmatch(value):
            continue
        if name == "pod":
            value = _deployment_of(value)
        elif name == "job":
            value = value.rpartition("/")[2]
        if value is not None:
            return _dns_label(value, name)
    raise _Unmappable(f"no label names the service; add one of {', '.join(SERVICE_LABELS)} to the alert")


def _environment(labels: Mapping[str, str], namespace: str | None, settings: Settings) -> str:
    for name in ENVIRONMENT_LABELS:
        value = _label(labels, name)
        if value is not None:
            return _dns_label(value, name)
    if namespace is None:
        raise _Unmappable("no label names the environment; add environment or namespace to the alert")
    environments = [e for e, mapped in settings.environment_namespaces.items() if mapped == namespace]
    return _dns_label(environments[0] if environments else namespace, "namespace")


def _label(labels: Mapping[str, str], name: str) -> str | None:
    return labels.get(f"exported_{name}") or labels.get(name) or None


def _deployment_of(pod: str | None) -> str | None:
    match = _POD.fullmatch(pod) if pod is not None else None
    return match["deployment"] if match is not None else None


def _dns_label(value: str, label: str) -> str:
    if _DNS_LABEL.fullmatch(value) is None:
        raise _Unmappable(
            f"label {label} is {shorten(value, 80)!r}; it must be a DNS label "
            "(a-z, 0-9 and -, at most 63 characters)"
        )
    return value
