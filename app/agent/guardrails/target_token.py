"""The specification of an object as one token, and the parts that an action depends on and changes.

Pure. The connectors write tokens; the loop compares them here. A decision depends on
more than the action changes: a restart depends on the template that it would roll out.
An undo restores only what the action changed, and only while that is unchanged since
the action: another change, such as replicas set by an autoscaler, neither forbids an
undo nor is overwritten by one (promises 1 and 10).
"""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.models import Action, ActionName

TEMPLATE, PAUSED, REPLICAS, REST, GENERATION = "template", "paused", "replicas", "rest", "generation"
DATA = "data"
"""The only part of a ConfigMap's token."""

_ROLLOUT = (TEMPLATE, PAUSED)
"""A template takes effect through a rollout, which a paused Deployment does not start."""


def deployment_token(
    uid: str, *, generation: int, template: str, paused: bool, replicas: int, rest: str
) -> str:
    """The token of a Deployment; `template` and `rest` (the other fields of its spec) are digests."""
    parts = {
        GENERATION: str(generation),
        TEMPLATE: template,
        PAUSED: "true" if paused else "false",
        REPLICAS: str(replicas),
        REST: rest,
    }
    return f"{uid}/{','.join(f'{name}={value}' for name, value in parts.items())}"


def parts_changed(action: Action) -> tuple[str, ...]:
    """The parts of its object that an action changes or an undo restores; empty: all."""
    if action.target is not None and action.target.kind == "ConfigMap":
        return (DATA,)
    name: object = action.name
    if action.name is ActionName.RESTORE:
        name = action.parameters.get("undoes")
    match name:
        case ActionName.SCALE:
            return (REPLICAS,)
        case ActionName.PAUSE | ActionName.RESUME:
            return (PAUSED,)
        case ActionName.RESTART | ActionName.ROLLBACK | ActionName.REVERT_CONFIG:
            return (TEMPLATE,)
        case _:
            return ()


def same_ground(action: Action, decided: str | None, now: str | None) -> bool:
    """Whether a decision for `action` on the state `decided` still holds for the state `now`.

    The number of replicas matters only for an action that sets it.
    """
    ground = (*_ROLLOUT, REST)
    changed = parts_changed(action)
    return _alike(decided, now, ground if changed and REPLICAS not in changed else (*ground, REPLICAS))


def as_left(action: Action, applied: str | None, now: str | None) -> bool:
    """Whether what `action` changed is unchanged since, so that an undo overwrites no other change."""
    return _alike(applied, now, parts_held(action))


def moved_parts(action: Action, applied: str | None, now: str | None) -> tuple[str, ...]:
    """The parts compared by `as_left` that differ; empty if a token does not name its parts."""
    these, those = _parts(applied or ""), _parts(now or "")
    return tuple(part for part in parts_held(action) if these.get(part) != those.get(part))


def restored_parts(action: Action, before: str | None, now: str | None) -> bool:
    """Whether what `action` changed has its previous state again."""
    return _alike(before, now, parts_changed(action) or (*_ROLLOUT, REPLICAS))


def parts_held(action: Action) -> tuple[str, ...]:
    """The parts that must be unchanged since the action for its undo to be valid."""
    changed = parts_changed(action)
    if not changed:
        return (*_ROLLOUT, REPLICAS)
    return changed if REPLICAS in changed or DATA in changed else _ROLLOUT


def makes_pods(before: str, after: str) -> bool:
    """Whether a change of a Deployment creates new pods: a rollout, or more replicas."""
    these, those = _parts(before), _parts(after)
    if those[PAUSED] == "true" or those[REPLICAS] == "0":
        return False
    rolls_out = (these[TEMPLATE], these[PAUSED]) != (those[TEMPLATE], those[PAUSED])
    return rolls_out or int(those[REPLICAS]) > int(these[REPLICAS])


def _alike(one: str | None, other: str | None, parts: tuple[str, ...]) -> bool:
    if one == other:
        return True
    if one is None or other is None or _uid(one) != _uid(other):
        return False
    these, those = _parts(one), _parts(other)
    if these and those:
        return all(these.get(part) == those.get(part) for part in parts)
    # An older version stored only the generation, which changes with every part.
    generation = these.get(GENERATION) or those.get(GENERATION)
    return generation is not None and generation in (_asked(one), _asked(other))


def _uid(token: str) -> str:
    return token.rpartition("/")[0]


def _asked(token: str) -> str:
    return token.rpartition("/")[2]


def _parts(token: str) -> Mapping[str, str]:
    """The named parts; empty for the token of a ConfigMap or of an older version."""
    pairs = (item.partition("=") for item in _asked(token).split(","))
    return {name: value for name, separator, value in pairs if separator}
