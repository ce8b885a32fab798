"""What happens to requests: load on each service, queueing, retries, failures passed on to callers.

Pure over a picture of the moment. Load goes from callers to callees, failures and
latency come back, and retries turn failures into load, so the two are computed in
turns until they agree, beginning with what held before: an overload that feeds
itself stays until the load is taken away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from app.sandbox.services import Call, External, ExternalKind, Surroundings

MOST_ROUNDS = 25
_SETTLED = 1e-3
_SLOWEST = 30.0
"""How many times its latency at rest a pod takes that has no capacity left."""
_CONTENTION = 0.8
"""The share of its connections from which a database spends capacity on them."""

Edge = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The pods of a service that fare alike, and receive an equal part of its load each."""

    pods: int
    capacity: float
    """Requests per second of one pod."""
    concurrency: int
    latency_ms: float
    errors: float
    calls_factor: float = 1.0
    unreachable: frozenset[str] = frozenset()
    """Callees that it cannot call, because it has no valid address or credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One service at this moment."""

    offered: float
    """Requests per second from outside."""
    groups: tuple[Group, ...]
    calls: tuple[Call, ...]
    selected: bool = True
    """Whether its Service sends requests to its pods."""

    @property
    def pods(self) -> int:
        return sum(group.pods for group in self.groups) if self.selected else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """How the requests fared that one group answered."""

    weight: float
    errors: float
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a service or external system fares."""

    load: float = 0.0
    errors: float = 0.0
    latency_ms: float = 0.0
    utilisation: float = 0.0
    parts: tuple[Part, ...] = ()
    """Empty where no pod answers: nothing is measured then."""


DOWN = Result(errors=1.0, latency_ms=0.0)


@dataclass(slots=True)
class Flow:
    """Remembers how calls fared, which is where the next computation starts."""

    results: dict[str, Result] = field(default_factory=dict)

    def settle(
        self, nodes: Mapping[str, Node], surroundings: Surroundings, failed: float = 0.001
    ) -> dict[str, Result]:
        """How every service and external system fares now; `failed`: the errors of a healthy pod."""
        order = _callees_first(nodes)
        results = {name: self.results.get(name, Result()) for name in (*nodes, *surroundings.externals)}
        for _ in range(MOST_ROUNDS):
            loads = _loads(nodes, list(reversed(order)), results, surroundings)
            moved = 0.0
            connections = _connections(nodes)
            for name, external in surroundings.externals.items():
                after = _external(external, loads.get(name, 0.0), connections.get(name, 0))
                moved = max(moved, _difference(results[name], after))
                results[name] = after
            for name in order:
                after = _service(nodes[name], name, loads.get(name, 0.0), results, surroundings, failed)
                moved = max(moved, _difference(results[name], after))
                results[name] = _damped(results[name], after)
            if moved < _SETTLED:
                break
        self.results = results
        return results


def _damped(before: Result, after: Result) -> Result:
    """Half-way in latency: two services that slow each other down would swing without end."""
    if abs(before.latency_ms - after.latency_ms) < 1.0 or not before.parts:
        return after
    return replace(after, latency_ms=(before.latency_ms + after.latency_ms) / 2)


def _difference(one: Result, other: Result) -> float:
    slower = abs(one.latency_ms - other.latency_ms) / max(1.0, one.latency_ms, other.latency_ms)
    return max(abs(one.errors - other.errors), slower, abs(one.load - other.load) / max(1.0, other.load))


def _callees_first(nodes: Mapping[str, Node]) -> list[str]:
    """An order in which every callee comes before its callers; in a circle someone is first."""
    order: list[str] = []
    entered: set[str] = set()

    def visit(name: str) -> None:
        if name in entered:
            return
        entered.add(name)
        for call in nodes[name].calls:
            if call.to in nodes:
                visit(call.to)
        order.append(name)

    for name in nodes:
        visit(name)
    return order


def _loads(
    nodes: Mapping[str, Node], order: list[str], results: Mapping[str, Result], surroundings: Surroundings
) -> dict[str, float]:
    """Requests per second on each service and external system, callers first."""
    loads = {name: node.offered for name, node in nodes.items()}
    for name in order:
        node = nodes[name]
        total = node.pods
        for group in node.groups if node.selected else ():
            served = loads[name] * group.pods / total
            for call in node.calls:
                if call.to in group.unreachable or (name, call.to) in surroundings.blocked:
                    continue
                failed = results[call.to].errors if call.to in results else 0.0
                attempts = sum(failed**attempt for attempt in range(call.retries + 1))
                loads[call.to] = (
                    loads.get(call.to, 0.0) + served * call.per_request * group.calls_factor * attempts
                )
    return loads


def _connections(nodes: Mapping[str, Node]) -> dict[str, int]:
    """How many connections the pods hold open to each external system."""
    held: dict[str, int] = {}
    for node in nodes.values():
        pods = sum(group.pods for group in node.groups)
        for call in node.calls:
            held[call.to] = held.get(call.to, 0) + pods * call.connections
    return held


def _external(external: External, load: float, connections: int) -> Result:
    if not external.up:
        return replace(DOWN, load=load)
    refused, capacity = 0.0, external.capacity
    if external.kind is ExternalKind.DATABASE and external.max_connections > 0:
        used = connections / external.max_connections
        refused = max(0.0, 1 - 1 / used) if used > 1 else 0.0
        capacity *= max(0.3, 1 - max(0.0, used - _CONTENTION))
    utilisation = load / max(0.001, capacity)
    errors = 1 - (1 - external.errors) * (1 - refused) * min(1.0, 1 / max(utilisation, 0.001))
    return Result(
        load=load,
        errors=errors,
        latency_ms=external.latency_ms * _queueing(utilisation),
        utilisation=utilisation,
    )


def _service(
    node: Node,
    name: str,
    load: float,
    results: Mapping[str, Result],
    surroundings: Surroundings,
    failed: float,
) -> Result:
    total = node.pods
    if total == 0:
        return replace(DOWN, load=load)
    per_pod = load / total
    parts, utilisation = [], 0.0
    for group in node.groups:
        part, used = _group(group, node, name, per_pod, results, surroundings, failed)
        parts.append(replace(part, weight=group.pods / total))
        utilisation += used * group.pods / total
    return Result(
        load=load,
        errors=sum(part.weight * part.errors for part in parts),
        latency_ms=max(part.latency_ms for part in parts if part.weight >= 0.05),
        utilisation=utilisation,
        parts=tuple(parts),
    )


def _group(
    group: Group,
    node: Node,
    name: str,
    per_pod: float,
    results: Mapping[str, Result],
    surroundings: Surroundings,
    failed: float,
) -> tuple[Part, float]:
    """How one group fares, and the share of its capacity that is used."""
    succeeds, waits = (1 - failed) * (1 - group.errors), 0.0
    for call in node.calls:
        cut = (name, call.to) in surroundings.blocked
        if cut or call.to in group.unreachable:
            error, latency = 1.0, call.timeout_ms if cut else 10.0
        else:
            answer = results.get(call.to, DOWN)
            error, latency = answer.errors, min(call.timeout_ms, answer.latency_ms)
            if answer.latency_ms > call.timeout_ms:
                error = max(error, 0.9)
        # Half of the time-outs and repetitions count: p95 is that of the calls that are repeated.
        attempts = 1 + sum(error**attempt for attempt in range(1, call.retries + 1))
        waits += latency * attempts * max(1.0, call.per_request * group.calls_factor)
        if call.required:
            succeeds *= 1 - error ** (call.retries + 1)
    latency = group.latency_ms + waits
    capacity = max(0.001, min(group.capacity, group.concurrency / (latency / 1000)))
    utilisation = per_pod / capacity
    if utilisation > 1:
        succeeds /= utilisation
    return (
        Part(weight=0.0, errors=1 - succeeds, latency_ms=group.latency_ms * _queueing(utilisation) + waits),
        utilisation,
    )


def _queueing(utilisation: float) -> float:
    """How many times as long a request takes as on an idle server."""
    if utilisation >= 1:
        return _SLOWEST
    return min(_SLOWEST, 1 + 0.5 * utilisation**4 / max(0.02, 1 - utilisation))
