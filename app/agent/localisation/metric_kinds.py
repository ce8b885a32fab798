"""The kind of a metric, derived from the words of its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache


class MetricKind(StrEnum):
    """The quantity that a metric measures."""

    LATENCY = "latency"
    OUTGOING_LATENCY = "latency of outgoing calls"
    ERRORS = "errors"
    REQUESTS = "requests"
    CPU = "CPU"
    MEMORY = "memory"
    DISK = "disk"
    QUEUE = "queue"
    NETWORK = "network traffic"
    OTHER = "other"


MEAN = 0.0
"""The statistic of a metric that is an average rather than a quantile."""

_WORDS: tuple[tuple[MetricKind, frozenset[str]], ...] = (
    (MetricKind.LATENCY, frozenset({"latency", "duration", "response", "rt"})),
    (
        MetricKind.ERRORS,
        frozenset(
            {"error", "errors", "fail", "failed", "failure", "failures", "exceptions", "5xx"}
            | {"availability", "success"}
        ),
    ),
    (MetricKind.CPU, frozenset({"cpu"})),
    (MetricKind.MEMORY, frozenset({"mem", "memory", "rss", "heap"})),
    (MetricKind.DISK, frozenset({"disk", "diskio", "io", "iops", "filesystem"})),
    (MetricKind.NETWORK, frozenset({"net", "network", "rx", "tx", "packets", "socket", "sockets"})),
    (MetricKind.QUEUE, frozenset({"queue", "lag", "backlog", "pending"})),
    (
        MetricKind.REQUESTS,
        frozenset(
            {"request", "requests", "rps", "qps", "throughput", "load", "workload", "traffic", "calls"}
        ),
    ),
)
_FALLS_IN_FAULT = frozenset({"availability", "success"})
_OUTGOING = frozenset({"client", "outgoing", "outbound", "egress"})
_PERCENT = frozenset({"pct", "percent", "percentage"})
_SHARE = frozenset({"rate", "ratio", "share"}) | _FALLS_IN_FAULT
_WORD = re.compile(r"[a-z]+[0-9]*|[0-9]+[a-z]*")
_QUANTILE = re.compile(r"p(\d{2,4})")

_LEAST_SHARE = 0.005
"""The least change of an error rate that counts: half a percent, the size of an error budget."""


@dataclass(frozen=True, slots=True)
class MetricMeaning:
    """The kind of a metric and how to judge its values.

    `statistic` is the quantile of a metric such as `latency_p95` (0.95), otherwise
    `MEAN`. `falls_in_fault` is true where less is the fault, as of an availability.
    `least_spread` is the least spread in the unit of the metric, 0 where the unit has no scale.
    """

    kind: MetricKind
    statistic: float
    falls_in_fault: bool
    least_spread: float

    @property
    def is_share(self) -> bool:
        """Whether its values are shares of 1."""
        return self.least_spread == _LEAST_SHARE


@lru_cache(maxsize=4096)
def meaning_of(metric: str) -> MetricMeaning:
    """The kind of a metric by its name; `MetricKind.OTHER` if no word of it is known."""
    words = _WORD.findall(metric.lower())
    known = frozenset(words)
    quantiles = [float(f"0.{m[1]}") for w in words if (m := _QUANTILE.fullmatch(w))]
    kind = next((kind for kind, names in _WORDS if known & names), MetricKind.OTHER)
    if kind is MetricKind.LATENCY and known & _OUTGOING:
        kind = MetricKind.OUTGOING_LATENCY
    least = 0.0
    if kind is MetricKind.ERRORS:
        least = 100 * _LEAST_SHARE if known & _PERCENT else _LEAST_SHARE if known & _SHARE else 0.0
    return MetricMeaning(kind, quantiles[0] if quantiles else MEAN, bool(known & _FALLS_IN_FAULT), least)
