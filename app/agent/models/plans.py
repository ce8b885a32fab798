"""The closed set of actions, and a plan: the actions of one runbook, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.agent.ids import JsonScalar
from app.agent.workload import ObjectRef


class ActionName(StrEnum):
    """The closed set of operations, each in a file of `app/agent/actions/`. No command is free-form."""

    RESTART = "restart"
    ROLLBACK = "rollback"
    REVERT_CONFIG = "revert_config"
    SCALE = "scale"
    PAUSE = "pause"
    RESUME = "resume"
    NOTIFY = "notify"
    CORDON = "cordon"
    UNCORDON = "uncordon"
    DRAIN_NODE = "drain_node"
    DELETE_STUCK_POD = "delete_stuck_pod"
    RAISE_AUTOSCALER_BOUNDS = "raise_autoscaler_bounds"
    RAISE_MEMORY_LIMIT = "raise_memory_limit"
    DISABLE_FLAG = "disable_flag"
    RERUN_JOB = "rerun_job"
    SILENCE_ALERTS = "silence_alerts"
    ABORT_ROLLOUT = "abort_rollout"
    RETRY_ROLLOUT = "retry_rollout"
    PROMOTE_ROLLOUT = "promote_rollout"
    PAUSE_ROLLOUT = "pause_rollout"
    RESTORE = "restore"
    """Undo: put an object back to the snapshot taken before another action. Never in a runbook."""

    @property
    def words(self) -> str:
        """The action in a sentence: `revert config`; of the undo of another one `undo`."""
        return "undo" if self is ActionName.RESTORE else self.value.replace("_", " ")


class Risk(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One typed operation on one object, with resolved parameters."""

    name: ActionName
    risk: Risk
    target: ObjectRef | None
    """None where nothing in a cluster is touched (notify), or no cluster is known."""
    parameters: Mapping[str, JsonScalar]
    expected_effect: str
    undo: str | None
    """How it is undone, in words; None when it cannot or need not be."""
    diagnosed_token: str | None = None
    """The target's state that the diagnosis saw: a plan for another state is void."""
    then_verify: bool = True
    """False when the next action of the plan completes it: only both together can be judged."""
    leaves: str | None = None
    """The state of the target before it, named by content; None if it has no name."""
    reaches: str | None = None
    """The state of the target after it, named by content."""
    drifts_from: str | None = None
    """The release that wrote the changed fields and does not notice it (`Helm release shop`), or None."""

    @property
    def words(self) -> str:
        """The action in a sentence: `revert config`, `undo of revert config`."""
        undone = self.parameters.get("undoes") if self.name is ActionName.RESTORE else None
        if not isinstance(undone, str):
            return self.name.words
        return f"{self.name.words} of {undone.replace('_', ' ')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRunbook:
    """Why a runbook of the catalogue was not chosen."""

    runbook: str
    reason: str
    addresses_cause: bool = True
    """Whether it is for the diagnosed cause at all; True where an older version did not record it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ordered actions from one approved runbook; empty actions mean: take no action and escalate."""

    runbook: str | None
    """`id@version`, None when no runbook fits."""
    runbook_hash: str | None
    actions: tuple[Action, ...]
    rejected: tuple[RejectedRunbook, ...]
    hash: str
    """SHA-256 over the canonical form of runbook hash and actions; decisions are bound to it."""
    at: datetime
    handover: tuple[str, ...] = ()
    """The instructions of a runbook that hands the incident to a person; it has no actions."""
