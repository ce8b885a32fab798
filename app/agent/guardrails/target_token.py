"""The specification of an object as one token of named parts, and the comparison of two tokens.

Pure. The connectors write tokens. Which parts matter to an action:
`app.agent.actions.target_parts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

TEMPLATE, PAUSED, REPLICAS, REST, GENERATION = "template", "paused", "replicas", "rest", "generation"
UNSCHEDULABLE = "unschedulable"
"""Of a Node: whether it is cordoned."""
CORDONED_BY = "cordoned_by"
"""Of a cordoned Node: the field managers that hold the cordon; empty while it is schedulable."""
MAXIMUM = "maximum"
"""Of an autoscaler: the most replicas that it sets."""
READY, TERMINATING = "ready", "terminating"
"""Of a pod: whether it serves, and whether its deletion was requested."""
ABORTED, STEP = "aborted", "step"
"""Of an Argo Rollout: whether its update is aborted, and the step at which it stands or waits."""
ABORTED_AT = "aborted_at"
"""Of an Argo Rollout: when its update was aborted, as its controller wrote it; "-" while it is not."""
RUN, REPEATED_AS = "run", "repeated_as"
"""Of a Job: how it ended, and the name of the Job that repeats it; "-" while none does."""
SILENCED = "silenced"
"""Of a Silence: the intents whose silences of the service are in force."""
NOT_SILENCED = "-"
"""The value of `SILENCED` while no silence of the agent is in force."""
DATA = "data"
"""The only part of a ConfigMap's token."""

ROLLOUT = (TEMPLATE, PAUSED)
"""A template takes effect through a rollout, which a paused workload does not start."""


def workload_token(
    uid: str, *, generation: int, template: str, paused: bool, replicas: int, rest: str
) -> str:
    """The token of a workload; `template` and `rest` (the other fields of its spec) are digests."""
    parts = {
        GENERATION: str(generation),
        TEMPLATE: template,
        PAUSED: "true" if paused else "false",
        REPLICAS: str(replicas),
        REST: rest,
    }
    return f"{uid}/{','.join(f'{name}={value}' for name, value in parts.items())}"


def with_parts(token: str, parts: Mapping[str, str]) -> str:
    """A token with further parts."""
    return ",".join((token, *(f"{name}={value}" for name, value in parts.items())))


def object_token(uid: str, parts: Mapping[str, str]) -> str:
    """The token of an object of another kind, by its named parts."""
    return f"{uid}/{','.join(f'{name}={value}' for name, value in parts.items())}"


def managers_word(managers: Iterable[str]) -> str:
    """Field managers as the value of a part, without the characters that separate parts."""
    return "+".join(sorted("".join(c if c.isalnum() or c in "-._" else "_" for c in one) for one in managers))


def removed(decided: str | None, now: str) -> bool:
    """Whether the object that was decided on is deleted: another one has its name, or it is being deleted."""
    return _uid(decided or "") != _uid(now) or parts_of(now).get(TERMINATING) == "true"


def makes_pods(before: str, after: str) -> bool:
    """Whether a change of a workload creates new pods: a rollout, or more replicas."""
    these, those = parts_of(before), parts_of(after)
    if those[PAUSED] == "true" or those[REPLICAS] == "0":
        return False
    rolls_out = (these[TEMPLATE], these[PAUSED]) != (those[TEMPLATE], those[PAUSED])
    return rolls_out or int(those[REPLICAS]) > int(these[REPLICAS])


def alike(one: str | None, other: str | None, parts: tuple[str, ...]) -> bool:
    """Whether two tokens are of the same object, and equal in these parts."""
    if one == other:
        return True
    if one is None or other is None or _uid(one) != _uid(other):
        return False
    these, those = parts_of(one), parts_of(other)
    if these and those:
        return all(these.get(part) == those.get(part) for part in parts)
    # An older version stored only the generation, which changes with every part.
    generation = these.get(GENERATION) or those.get(GENERATION)
    return generation is not None and generation in (_asked(one), _asked(other))


def _uid(token: str) -> str:
    return token.rpartition("/")[0]


def _asked(token: str) -> str:
    return token.rpartition("/")[2]


def parts_of(token: str) -> Mapping[str, str]:
    """The named parts; empty for the token of a ConfigMap or of an older version."""
    pairs = (item.partition("=") for item in _asked(token).split(","))
    return {name: value for name, separator, value in pairs if separator}
