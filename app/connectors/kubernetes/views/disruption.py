"""What a workload lets go missing, from its strategy and the PodDisruptionBudgets that cover its pods.

Pure; called by the reader in `k8s`. Counts and percentages are resolved as the
controllers resolve them: what may be missing is rounded down in a strategy, and
up in a budget.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.agent.guardrails.disruption import Disruption, DisruptionBudget
from app.agent.ids import Json, JsonObject
from app.connectors.kubernetes.api import Kind
from app.connectors.kubernetes.fields import (
    kind_of,
    mapping,
    name,
    number,
    text,
    texts,
)
from app.connectors.kubernetes.index import selects
from app.connectors.kubernetes.templates import template_of
from app.connectors.kubernetes.views import update_strategy
from app.connectors.kubernetes.views.revisions import counts_of, spec_observed

_DEFAULT = "25%"


def disruption_of(workload: JsonObject, budgets: Iterable[JsonObject], unread: str | None) -> Disruption:
    """`budgets` are all of the namespace."""
    replicas = counts_of(workload).desired
    labels = texts(template_of(workload), "metadata", "labels")
    return Disruption(
        replicas=replicas,
        missing_at_once=_missing_at_once(workload, replicas),
        budgets=tuple(_budget(item, replicas) for item in budgets if _covers(item, labels)),
        serving=_serving(workload),
        unread=unread,
    )


def _serving(workload: JsonObject) -> int | None:
    """The available replicas of the newest specification; None while its controller has not seen it."""
    return counts_of(workload).available if spec_observed(workload) else None


def _missing_at_once(workload: JsonObject, replicas: int) -> int:
    strategy = update_strategy(workload)
    rolling = mapping(strategy, "rollingUpdate")
    match kind_of(workload), text(strategy, "type"):
        case _, "Recreate":
            return replicas
        case _, "OnDelete":
            return 0
        case Kind.STATEFUL_SET, _:
            return min(replicas, max(1, _count(rolling.get("maxUnavailable", 1), replicas, up=False)))
        case Kind.DAEMON_SET, _:
            missing = _count(rolling.get("maxUnavailable", 1), replicas, up=True)
            surge = _count(rolling.get("maxSurge", 0), replicas, up=True)
        case _:
            missing = _count(rolling.get("maxUnavailable", _DEFAULT), replicas, up=False)
            surge = _count(rolling.get("maxSurge", _DEFAULT), replicas, up=True)
    # With neither the controller could not move, and takes one away.
    return min(replicas, missing if missing or surge else 1)


def _covers(budget: JsonObject, labels: dict[str, str]) -> bool:
    """An empty selector covers every pod of the namespace, a missing one none."""
    selector = mapping(budget, "spec").get("selector")
    return selector == {} or (isinstance(selector, dict) and selects(selector, labels))


def _budget(budget: JsonObject, replicas: int) -> DisruptionBudget:
    """As its controller worked it out; from its own words while the controller has not looked."""
    expected = number(budget, "status", "expectedPods")
    desired = number(budget, "status", "desiredHealthy")
    seen = number(budget, "status", "observedGeneration") == number(budget, "metadata", "generation")
    if not (seen and expected and desired is not None):
        spec = mapping(budget, "spec")
        expected = replicas
        if "minAvailable" in spec:
            desired = _count(spec["minAvailable"], replicas, up=True)
        else:
            desired = replicas - _count(spec.get("maxUnavailable", 0), replicas, up=True)
    return DisruptionBudget(name=name(budget), expected_pods=expected, desired_healthy=max(0, desired))


def _count(value: Json, of: int, *, up: bool) -> int:
    """`2` or `"25%"` of so many pods; what cannot be understood is none."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, int):
        return max(0, value)
    if isinstance(value, str) and value.endswith("%") and value[:-1].isdecimal():
        percent = int(value[:-1])
        return (percent * of + 99) // 100 if up else percent * of // 100
    return 0
