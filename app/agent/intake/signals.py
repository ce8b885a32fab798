"""Signals from observations: their ids, and the keys that identify duplicates. Pure."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from math import isfinite

from app.agent.identity.people import Sender
from app.agent.ids import ServiceKey, SignalId
from app.agent.models import (
    Alert,
    ClusterCondition,
    ConfigChange,
    Deploy,
    MetricSample,
    Payload,
    Signal,
    SignalKind,
)

_KINDS: dict[type[Payload], SignalKind] = {
    Deploy: SignalKind.DEPLOY,
    MetricSample: SignalKind.METRIC,
    Alert: SignalKind.ALERT,
    ClusterCondition: SignalKind.CONDITION,
    ConfigChange: SignalKind.CHANGE,
}

_FIELDS = {kind: tuple(one.name for one in fields(kind)) for kind in _KINDS}
_encoded = json.JSONEncoder(sort_keys=True, default=str).encode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

BY_CONTENT = "content:"
"""How the deduplication key of a signal begins that its content identifies."""


def new_signal(
    *,
    key: ServiceKey,
    source: str,
    observed_at: datetime,
    received_at: datetime,
    payload: Payload,
    stale_after: timedelta,
    dedup_key: str | None = None,
    signal_id: SignalId | None = None,
    sender: Sender | None = None,
) -> Signal:
    """A signal, its staleness evaluated on arrival, with a new id unless its source has a lasting one.

    Without a `dedup_key` two signals are the same if source, service, time and content are equal.
    """
    kind = _KINDS[type(payload)]
    if dedup_key is None:
        content = _reported(source, key, observed_at, payload)
        dedup_key = f"{BY_CONTENT}{hashlib.sha256(content.encode()).hexdigest()}"
    return Signal(
        id=signal_id or _new_id(received_at),
        kind=kind,
        key=key,
        source=source,
        observed_at=observed_at,
        received_at=received_at,
        dedup_key=dedup_key,
        stale=received_at - observed_at > stale_after,
        payload=payload,
        sender=sender,
    )


def _new_id(received_at: datetime) -> SignalId:
    """Ids grow with the time of arrival, so that an index over them is written at its end.

    The rest comes from the operating system: processes that share the state of Python's
    generator, forked or seeded alike, would give two signals one id.
    """
    micros = (received_at - _EPOCH) // _MICROSECOND
    return SignalId(f"sig_{micros:016x}{os.urandom(8).hex()}")


def _reported(source: str, key: ServiceKey, observed_at: datetime, payload: Payload) -> str:
    """JSON of the observation; two observations are the same if their JSON is."""
    if isinstance(payload, MetricSample):
        return _reported_sample(source, key, observed_at, payload)
    content = [source, _KINDS[type(payload)], key.environment, key.service, observed_at.isoformat()]
    return _encoded([*content, _content(payload)])


def _reported_sample(source: str, key: ServiceKey, observed_at: datetime, sample: MetricSample) -> str:
    """The same text that the encoder writes, of the kind of signal that comes by the thousand."""
    rate = "" if sample.request_rate is None else f', "request_rate": {_number(sample.request_rate)}'
    crash_looping = "null" if sample.crash_looping is None else "true" if sample.crash_looping else "false"
    return (
        f'{_reported_of(source, key.environment, key.service)}"{observed_at.isoformat()}", '
        f'{{"crash_looping": {crash_looping}, '
        f'"error_rate": {_number(sample.error_rate)}, '
        f'"p95_latency_ms": {_number(sample.p95_latency_ms)}{rate}}}]'
    )


@lru_cache(maxsize=16_384)
def _reported_of(source: str, environment: str, service: str) -> str:
    return f'[{_quoted(source)}, "metric", {_quoted(environment)}, {_quoted(service)}, '


def _number(value: float | None) -> str:
    return "null" if value is None else repr(value) if isfinite(value) else _encoded(value)


def _content(payload: Payload) -> dict[str, object]:
    return {name: getattr(payload, name) for name in _FIELDS[type(payload)]}
