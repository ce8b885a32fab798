"""How many nodes may be cordoned at once, and whose cordon is still needed. Pure (promise 4).

The counts are those of the cluster, not of the agent's record: a cordon counts until the
node is schedulable again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.agent.guardrails.workload_kinds import NODE
from app.agent.ids import IncidentId
from app.agent.models import Action, Incident

CORDONED, SCHEDULABLE = "cordoned", "schedulable"
"""The states of a node that actions leave and reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCordons:
    """The nodes of a cluster, and which of them take no new pods."""

    nodes: int
    cordoned: tuple[str, ...] = ()
    """Cordoned by the agent or by anyone else."""
    own: tuple[str, ...] = ()
    """The nodes that the agent cordoned and no one else cordoned since."""
    unread: str | None = None
    """Why the nodes could not be read; None if they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CordonLimits:
    """How many nodes may be cordoned at once."""

    own: int = 1
    """The most that the agent holds cordoned."""
    share: float = 1.0
    """The share of the nodes that may be cordoned, by anyone; one is always allowed."""


def cordons_node(action: Action) -> bool:
    """Whether the action takes a node out of scheduling."""
    return _on_node(action) and action.reaches == CORDONED


def frees_node(action: Action) -> bool:
    """Whether the action, or the undo of one, lets pods be scheduled to a node again."""
    return _on_node(action) and action.reaches == SCHEDULABLE


def too_many_cordoned(action: Action, found: NodeCordons | None, limits: CordonLimits) -> tuple[str, ...]:
    """Why one more cordon is too many; empty for an action that cordons no node, and within the limits."""
    if not cordons_node(action) or action.target is None:
        return ()
    if found is None or found.unread is not None:
        why = "no cluster connected" if found is None else found.unread
        return (f"the cordoned nodes cannot be counted: {why}",)
    own, cordoned = ({*names} - {action.target.name} for names in (found.own, found.cordoned))
    reasons = []
    if len(own) >= limits.own:
        reasons.append(
            f"the agent holds {len(own)} nodes cordoned ({', '.join(sorted(own))}), "
            f"and MAX_CORDONED_NODES={limits.own} allows no more"
        )
    allowed = max(1, int(limits.share * found.nodes))
    if len(cordoned) >= allowed:
        reasons.append(
            f"{len(cordoned)} of {found.nodes} nodes are cordoned already, "
            f"and MAX_CORDONED_SHARE={limits.share:g} allows {allowed}"
        )
    return tuple(reasons)


def still_needed(action: Action, incident: IncidentId, open_now: Iterable[Incident]) -> str | None:
    """Which other open incident plans on the node being cordoned; None if none does."""
    if not frees_node(action):
        return None
    for other in open_now:
        planned = other.plan.actions if other.plan is not None else ()
        if other.id != incident and any(cordons_node(one) and one.target == action.target for one in planned):
            return f"the incident {other.id} of {other.key} still needs the cordon of {action.target}"
    return None


def _on_node(action: Action) -> bool:
    return action.target is not None and action.target.kind == NODE
