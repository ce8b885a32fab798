"""How many pods a workload may miss: its strategy and the PodDisruptionBudgets that cover its pods.

Values that the connectors read; `app.agent.guardrails.blast_radius` judges them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DisruptionBudget:
    """A PodDisruptionBudget that covers the pods of a workload."""

    name: str
    expected_pods: int
    """The expected number of pods."""
    desired_healthy: int
    """How many of them must stay available."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disruption:
    """How many pods a workload may miss during a rollout."""

    replicas: int
    """The desired number of replicas."""
    missing_at_once: int
    """The maximum unavailable pods of its rollout strategy."""
    budgets: tuple[DisruptionBudget, ...] = ()
    serving: int | None = None
    """The available replicas now; None where the cluster does not say."""
    unread: str | None = None
    """Why the budgets could not be read; None if they were."""
