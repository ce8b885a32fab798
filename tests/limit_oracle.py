"""Checks from the recorded actions alone whether limits were kept, by comparing all pairs.

It shares no code with the product: neither the windows nor the order in which
actions are examined. Used by the property tests over the stores and by
the simulation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One action that began and is no undo, as its row says."""

    intent: str
    incident: str
    service: str
    namespace: str
    began_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """Minutes of every hour, by a clock in UTC, in which nothing may begin."""

    minutes: frozenset[int]
    services: set[str] | None
    """Of these services; None: of any."""
    until: datetime | None = None
    """Not any more from then on."""

    def holds(self, row: Row) -> bool:
        past = self.until is not None and not self.until - timedelta(hours=1) < row.began_at < self.until
        concerned = self.services is None or row.service in self.services
        return concerned and not past and row.began_at.minute in self.minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """The limits that were set; None limits nothing."""

    window: timedelta
    per_service: int | None
    per_namespace: int | None
    per_cluster: int | None
    services: int | None
    """How many services may be acted on in one window."""
    cooldown: timedelta
    frozen: tuple[Frozen, ...] = ()


def beyond(rows: Sequence[Row], limits: Set) -> Iterator[str]:
    """Every way in which the rows go beyond the limits, in words; none when all were kept."""
    for last in rows:
        start = last.began_at - limits.window
        window = [row for row in rows if start < row.began_at <= last.began_at]
        for what, most, count in (
            (f"on {last.service}", limits.per_service, sum(r.service == last.service for r in window)),
            (
                f"in {last.namespace}",
                limits.per_namespace,
                sum(r.namespace == last.namespace for r in window),
            ),
            ("in the cluster", limits.per_cluster, len(window)),
        ):
            if most is not None and count > most:
                yield f"{count} actions {what} within {limits.window} up to {last.began_at}, {most} allowed"
        services = {row.service for row in window}
        if limits.services is not None and len(services) > limits.services:
            yield (
                f"{len(services)} services were acted on within {limits.window} up to {last.began_at}, "
                f"{limits.services} allowed"
            )
    for row in rows:
        if any(freeze.holds(row) for freeze in limits.frozen):
            yield f"{row.service} was acted on at {row.began_at}, within a freeze window"
    for one in rows:
        for other in rows:
            apart = abs(one.began_at - other.began_at)
            mine = one.service == other.service and one.incident < other.incident
            if mine and apart < limits.cooldown:
                yield (
                    f"{one.service} was acted on by {one.incident} and {other.incident} {apart} apart, "
                    f"it cools down for {limits.cooldown}"
                )
