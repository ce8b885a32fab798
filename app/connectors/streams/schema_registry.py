"""A schema registry (Confluent's API, which others speak too): which schema an Avro message was written by.

Used by the readers of streams. A schema never changes under its id, so each is
asked for once. While the registry cannot be reached the message waits; only a
registry's own word that an id is unknown makes a message unreadable.
"""

from __future__ import annotations

import json

from pydantic import SecretStr

from app.config import Settings
from app.connectors.http import HttpPeer, HttpReply
from app.connectors.streams.avro import FlatSchema, flat_schema, require_library
from app.errors import Invalid, NotFound, TransientError

_SETTING = "SCHEMA_REGISTRY_URL"
_SCHEMA_NOT_FOUND = 40403
_CACHED = 256
_MAX_BYTES = 1_048_576


class SchemaRegistry:
    """Looks schemas up by id."""

    def __init__(self, *, url: str, timeout_seconds: float, bearer_token: SecretStr | None = None) -> None:
        """Raises `ConfigurationError` for an address that cannot be used, or without the extra for Avro."""
        require_library()
        self._peer = HttpPeer(
            name="the schema registry",
            setting=_SETTING,
            url=url,
            timeout_seconds=timeout_seconds,
            bearer_token=bearer_token,
            max_bytes=_MAX_BYTES,
        )
        self._known: dict[int, FlatSchema] = {}

    @staticmethod
    def from_settings(settings: Settings) -> SchemaRegistry | None:
        """None where SCHEMA_REGISTRY_URL is not set; raises `ConfigurationError` as the constructor does."""
        if settings.schema_registry_url is None:
            return None
        return SchemaRegistry(
            url=settings.schema_registry_url,
            timeout_seconds=settings.schema_registry_timeout_seconds,
            bearer_token=settings.schema_registry_token,
        )

    async def schema(self, schema_id: int) -> FlatSchema:
        """The schema with this id.

        `NotFound` when the registry does not know it, `Invalid` when no event can
        have it; `TransientError` or `Forbidden` when the registry gives no answer.
        """
        known = self._known.get(schema_id)
        if known is None:
            known = _schema(schema_id, await self._ask(schema_id))
            if len(self._known) >= _CACHED:
                del self._known[next(iter(self._known))]
            self._known[schema_id] = known
        return known

    async def aclose(self) -> None:
        await self._peer.aclose()

    async def _ask(self, schema_id: int) -> dict[str, object]:
        reply = await self._peer.send("GET", f"/schemas/ids/{schema_id}")
        answer = _object(reply)
        if reply.status == 404 and answer.get("error_code") == _SCHEMA_NOT_FOUND:
            raise NotFound(f"the schema registry knows no schema {schema_id}")
        if reply.ok and "schema" in answer:
            return answer
        if reply.ok:
            raise TransientError(
                f"the schema registry ({_SETTING}) answered with something else than a schema"
            )
        refusal = self._peer.refusal(reply)
        if isinstance(refusal, NotFound | Invalid):
            # Not the registry's word on this schema: a wrong address, or a proxy. The message waits.
            raise TransientError(str(refusal))
        raise refusal


def _object(reply: HttpReply) -> dict[str, object]:
    try:
        answer = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _schema(schema_id: int, answer: dict[str, object]) -> FlatSchema:
    kind = answer.get("schemaType", "AVRO")
    if kind != "AVRO":
        raise Invalid(f"schema {schema_id} is of type {kind}; only AVRO is read")
    if answer.get("references"):
        raise Invalid(f"schema {schema_id} refers to other schemas; an event is one flat record")
    try:
        return flat_schema(str(answer["schema"]))
    except Invalid as error:
        raise Invalid(f"schema {schema_id} describes no event: {error}") from None
