"""The parts of objects that run no service themselves, by which a decision on them is bound. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from app.agent.guardrails.target_token import (
    CORDONED_BY,
    MAXIMUM,
    READY,
    TERMINATING,
    UNSCHEDULABLE,
    managers_word,
)
from app.agent.guardrails.workload_kinds import AUTOSCALER, NODE, POD
from app.agent.ids import JsonObject
from app.connectors.kubernetes.fields import condition_of, flag, mapping, number, objects, text


def _node(item: JsonObject) -> dict[str, str]:
    return {
        UNSCHEDULABLE: _word(flag(item, "spec", "unschedulable")),
        CORDONED_BY: managers_word(cordon_managers(item)),
    }


def cordon_managers(node: JsonObject) -> frozenset[str]:
    """The field managers that hold the cordon of a node; empty where it is not cordoned."""
    if not flag(node, "spec", "unschedulable"):
        return frozenset()
    return frozenset(
        text(entry, "manager") or ""
        for entry in objects(node, "metadata", "managedFields")
        if "f:unschedulable" in mapping(entry, "fieldsV1", "f:spec")
    )


def _autoscaler(item: JsonObject) -> dict[str, str]:
    return {MAXIMUM: str(number(item, "spec", "maxReplicas"))}


def _pod(item: JsonObject) -> dict[str, str]:
    return {
        READY: _word(text(condition_of(item, "Ready"), "status") == "True"),
        TERMINATING: _word(text(item, "metadata", "deletionTimestamp") is not None),
    }


def _word(value: bool) -> str:
    return "true" if value else "false"


PLAIN_PARTS: Mapping[str, Callable[[JsonObject], Mapping[str, str]]] = MappingProxyType(
    {NODE: _node, AUTOSCALER: _autoscaler, POD: _pod}
)
"""The named parts of each kind."""
