"""What an object asks for, as one text, and which parts of it an action rests on and changes.

Pure. The connectors write tokens, the loop compares them here. A decision rests on
more than the action changes: a restart is decided on the template that it would
roll out. An undo may put back only what the action changed, and only while that is
still as the action left it: a change of something else, such as replicas set by an
autoscaler, neither forbids an undo nor is overwritten by one (promises 1 and 10).
"""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.models import Action, ActionName

TEMPLATE, PAUSED, REPLICAS, REST, GENERATION = "template", "paused", "replicas", "rest", "generation"
DATA = "data"
"""All that is asked for of a ConfigMap."""

_ROLLOUT = (TEMPLATE, PAUSED)
"""A template takes effect through a rollout, which a paused Deployment does not begin."""


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
    """Which parts of its object an action changes, or an undo puts back; empty: all of them."""
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
    """Whether what was decided for `action` on the state `decided` still holds for the state `now`.

    The number of replicas counts only for an action that sets it.
    """
    ground = (*_ROLLOUT, REST)
    changed = parts_changed(action)
    return _alike(decided, now, ground if changed and REPLICAS not in changed else (*ground, REPLICAS))


def as_left(action: Action, applied: str | None, now: str | None) -> bool:
    """Whether what `action` changed is still as it left it, so that an undo overwrites nobody's change."""
    return _alike(applied, now, parts_held(action))


def moved_parts(action: Action, applied: str | None, now: str | None) -> tuple[str, ...]:
    """Which of the parts that `as_left` compares differ; empty where a token does not name its parts."""
    these, those = _parts(applied or ""), _parts(now or "")
    return tuple(part for part in parts_held(action) if these.get(part) != those.get(part))


def restored_parts(action: Action, before: str | None, now: str | None) -> bool:
    """Whether what `action` changed is again as it was before it."""
    return _alike(before, now, parts_changed(action) or (*_ROLLOUT, REPLICAS))


def parts_held(action: Action) -> tuple[str, ...]:
    """Which parts must be as the action left them for its undo to mean the same as when it was done."""
    changed = parts_changed(action)
    if not changed:
        return (*_ROLLOUT, REPLICAS)
    return changed if REPLICAS in changed or DATA in changed else _ROLLOUT


def makes_pods(before: str, after: str) -> bool:
    """Whether a change of a Deployment has new pods made: a rollout, or more replicas."""
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
    # A version before this one kept the generation alone, which moves with every part.
    generation = these.get(GENERATION) or those.get(GENERATION)
    return generation is not None and generation in (_asked(one), _asked(other))


def _uid(token: str) -> str:
    return token.rpartition("/")[0]


def _asked(token: str) -> str:
    return token.rpartition("/")[2]


def _parts(token: str) -> Mapping[str, str]:
    """The named parts; none in the token of a ConfigMap or of an older version."""
    pairs = (item.partition("=") for item in _asked(token).split(","))
    return {name: value for name, separator, value in pairs if separator}
