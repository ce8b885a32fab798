"""Notify: send a notification to every channel; no cluster is changed."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.spec import UNNAMED, ActionSpec, Parameter, PlanLimits, Resolution, Resolved, no_pods
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk

_EFFECT = "people are notified of the incident"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Always possible."""
    return Resolved(target=None, parameters=dict(parameters), expected_effect=_EFFECT, change=UNNAMED)


SPEC = ActionSpec(
    name=ActionName.NOTIFY,
    risk=Risk.LOW,
    parameters=(
        Parameter(name="message", meaning="The message to send; people see it unchanged.", max_length=500),
    ),
    expected_effect=_EFFECT,
    undo=None,
    resolve=resolve,
    kinds=frozenset(),
    changes=(),
    pods_taken=no_pods,
    enabled_by_default=True,
)
