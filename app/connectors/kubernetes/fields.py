"""Reads fields of Kubernetes API objects without trusting their shape.

Objects stay plain JSON throughout the connector, so that nothing a newer server
knows is lost on the way back. Whatever is missing or of another type reads as
empty: called by the other `k8s_*` modules, raises nothing.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

from app.agent.ids import Json, JsonObject

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _at(value: Json, path: tuple[str, ...]) -> Json:
    """The value at `path`; None where there is none."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def mapping(value: Json, *path: str) -> JsonObject:
    """The object at `path`, or an empty one."""
    found = _at(value, path)
    return found if isinstance(found, dict) else {}


def objects(value: Json, *path: str) -> list[JsonObject]:
    """The objects of the list at `path`."""
    found = _at(value, path)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def text(value: Json, *path: str) -> str | None:
    """The non-empty string at `path`."""
    found = _at(value, path)
    return found if isinstance(found, str) and found else None


def texts(value: Json, *path: str) -> dict[str, str]:
    """The string entries of the object at `path`: labels, annotations, data."""
    return {name: item for name, item in mapping(value, *path).items() if isinstance(item, str)}


def number(value: Json, *path: str) -> int | None:
    """The integer at `path`; a boolean is none."""
    found = _at(value, path)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def flag(value: Json, *path: str) -> bool:
    """Whether `path` holds true."""
    return _at(value, path) is True


def moment(value: Json, *path: str) -> datetime | None:
    """The time at `path`, in UTC."""
    found = text(value, *path)
    if found is None:
        return None
    try:
        parsed = datetime.fromisoformat(found)
    except ValueError:
        return None
    return parsed.astimezone(UTC) if parsed.tzinfo is not None else None


def created_at(item: JsonObject) -> datetime:
    """When the object was created; the epoch where it does not say."""
    return moment(item, "metadata", "creationTimestamp") or _EPOCH


def uid(item: JsonObject) -> str:
    return text(item, "metadata", "uid") or ""


def name(item: JsonObject) -> str:
    return text(item, "metadata", "name") or ""


def kind_of(item: JsonObject) -> str:
    """The kind that an object says it is of; a Deployment where it does not say."""
    return text(item, "kind") or "Deployment"


def controller_uid(item: JsonObject) -> str | None:
    """The uid of the object that controls this one."""
    owners = _at(item, ("metadata", "ownerReferences"))
    for owner in owners if isinstance(owners, list) else ():
        if flag(owner, "controller"):
            return text(owner, "uid")
    return None


def controller(item: JsonObject) -> tuple[str, str] | None:
    """Kind and name of the object that controls this one."""
    for owner in objects(item, "metadata", "ownerReferences"):
        if flag(owner, "controller"):
            return text(owner, "kind") or "", text(owner, "name") or ""
    return None


def condition_of(item: JsonObject, wanted: str) -> JsonObject:
    """The condition of that type in an object's status, or an empty object."""
    return next((c for c in objects(item, "status", "conditions") if text(c, "type") == wanted), {})


def digest(value: Json) -> str:
    """SHA-256 over the canonical JSON form: sorted keys, no spaces, no nulls."""
    canonical = json.dumps(_without_nulls(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _without_nulls(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
