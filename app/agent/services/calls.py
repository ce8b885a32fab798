"""Calls between services. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.ids import ServiceKey

Calls = Mapping[ServiceKey, tuple[ServiceKey, ...]]
"""The services that each service calls."""


def nearest(calls: Calls, key: ServiceKey, most: int) -> tuple[ServiceKey, ...]:
    """The services that a service calls, directly or not, direct ones first; at most `most`."""
    near = [key]
    for one in near:
        near.extend(d for d in calls.get(one, ()) if d not in near)
        if len(near) > most:
            break
    return tuple(near[1 : most + 1])


def unrelated(calls: Calls, one: ServiceKey, other: ServiceKey) -> bool:
    """Whether calls are known, and none lead from one of the services to the other."""
    if not calls:
        return False
    return other not in _behind(calls, one) and one not in _behind(calls, other)


def _behind(calls: Calls, key: ServiceKey) -> set[ServiceKey]:
    """The services that a service calls, directly or not."""
    pending, seen = [key], {key}
    while pending:
        following = [one for one in calls.get(pending.pop(), ()) if one not in seen]
        seen.update(following)
        pending.extend(following)
    return seen - {key}
