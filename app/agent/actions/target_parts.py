"""The parts of a target that an action depends on, changes and restores.

Pure. A decision depends on more than the action changes: a restart depends on the
template that it would roll out. An undo restores only what the action changed, and
only while that is unchanged since the action: another change, such as replicas set by
an autoscaler, neither prevents an undo nor is overwritten by it (promises 1 and 10).
"""

from __future__ import annotations

from app.agent.actions import ACTIONS
from app.agent.actions.spec import CONFIG_MAP
from app.agent.guardrails.target_token import (
    ABORTED,
    DATA,
    REPLICAS,
    REST,
    ROLLOUT,
    STEP,
    alike,
    parts_of,
)
from app.agent.models import Action, ActionName, Intent, Snapshot


def parts_changed(action: Action) -> tuple[str, ...]:
    """The parts of its object that an action changes or an undo restores; empty: all."""
    if action.target is not None and action.target.kind == CONFIG_MAP:
        return (DATA,)
    undone = action.parameters.get("undoes") if action.name is ActionName.RESTORE else None
    spec = next((one for name, one in ACTIONS.items() if name == undone), ACTIONS[action.name])
    return spec.changes


def same_ground(action: Action, decided: str | None, now: str | None) -> bool:
    """Whether a decision for `action` on the state `decided` still holds for the state `now`.

    The number of replicas matters only for an action that sets it.
    """
    changed = parts_changed(action) or (REPLICAS,)
    return alike(decided, now, (*ROLLOUT, REST, *changed, *ACTIONS[action.name].based_on))


def on_status(action: Action) -> bool:
    """Whether it changes only the subresource `status`, which ignores every other part of a request."""
    changed = {*parts_changed(action)}
    return bool(changed) and changed <= {ABORTED, STEP}


def carries_marker(action: Action) -> bool:
    """Whether its write leaves the id of its intent on the object."""
    return not on_status(action) and not ACTIONS[action.name].removes


def effect_shows(action: Action, decided: str | None, now: str) -> bool:
    """Whether the object shows the effect of a write that carries no marker, no matter who wrote it."""
    shows = ACTIONS[action.name].effect_shows
    if shows is not None:
        return shows(decided, now)
    # The undo of a change of the status: each part has two values, so another one is the earlier one.
    return on_status(action) and alike(decided, now, ()) and not alike(decided, now, parts_changed(action))


def as_left(action: Action, applied: str | None, now: str | None) -> bool:
    """Whether what `action` changed is unchanged since, so that an undo overwrites no other change."""
    return alike(applied, now, parts_held(action))


def moved_parts(action: Action, applied: str | None, now: str | None) -> tuple[str, ...]:
    """The parts compared by `as_left` that differ; empty if a token does not name its parts."""
    these, those = parts_of(applied or ""), parts_of(now or "")
    return tuple(part for part in parts_held(action) if these.get(part) != those.get(part))


def restored_parts(action: Action, before: str | None, now: str | None) -> bool:
    """Whether what `action` changed has its previous state again."""
    return alike(before, now, parts_changed(action) or (*ROLLOUT, REPLICAS))


def parts_held(action: Action) -> tuple[str, ...]:
    """The parts that must be unchanged since the action for its undo to be valid."""
    changed = parts_changed(action)
    if not changed:
        return (*ROLLOUT, REPLICAS)
    return ROLLOUT if {*changed} <= {*ROLLOUT} else changed


def asks_as_before(undone: Intent, after: Snapshot | None) -> bool:
    """Whether the fields that the undone action changed have their previous values; others may differ."""
    before = undone.snapshot
    if before is None or after is None:
        return False
    return after.body == before.body or restored_parts(undone.action, before.token, after.token)
