"""Read request bodies: bounded, and decoded more strictly than FastAPI does.

Routers call `read_json` for JSON. Its result has the guarantees of
`app.wire.strict_json`, so that later code cannot fail on malformed input.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from app.agent.ids import Json
from app.api.problems import FieldError, Problem, field_errors, invalid
from app.bounds.body import read_bounded
from app.bounds.deadline import deadline
from app.wire.strict_json import UnreadableJson, decode, decode_leniently

Model = TypeVar("Model", bound=BaseModel)

T = TypeVar("T")
P = ParamSpec("P")

BODY_TIMEOUT_SECONDS = 30.0
LARGE_BYTES = 16_384
"""Bodies up to this size are decoded inline, in a few milliseconds at most."""
_LARGE_BODIES = ThreadPoolExecutor(1, thread_name_prefix="large-bodies")
MAX_KEY_CHARS = 255
MAX_FORM_FIELDS = 20
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A decoded body with the bytes it came from."""

    raw: bytes
    value: Json


def _unsupported(detail: str, headers: dict[str, str]) -> Problem:
    return Problem(
        status=415,
        kind="unsupported-media-type",
        title="Unsupported media type",
        detail=detail,
        headers=headers,
    )


async def read_json(
    request: Request,
    limit: int,
    *,
    spared: Callable[[Json], bool] | None = None,
    expected: str | None = None,
) -> Body:
    """The body as JSON, at most `limit` bytes; raises `Problem` (400, 408, 413 or 415).

    `spared` names values that are decoded leniently, so that one odd character or number in them does not
    invalidate the whole body. `expected` describes the body, for the error about an empty one.
    """
    _check_media_type(request)
    raw = await _read_bounded(request, limit)
    if expected is not None and not raw.strip():
        raise Problem(
            status=400,
            kind="broken-json",
            title="The body is not valid JSON",
            detail=f"The body is empty. {expected}",
        )
    try:
        return Body(raw=raw, value=await beside(len(raw), decode, raw))
    except UnreadableJson as error:
        if spared is not None:
            with suppress(UnreadableJson):
                value = decode_leniently(raw)
                if spared(value):
                    return Body(raw=raw, value=value)
        raise Problem(
            status=400, kind="broken-json", title=error.title, detail=str(error), errors=error.errors
        ) from None


async def beside(size: int, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of the call; a body of that size runs in a thread if it would delay other requests.

    There is one such thread: several large bodies take turns, and leave the event loop its share of the
    interpreter.
    """
    if size <= LARGE_BYTES:
        return call(*args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_LARGE_BODIES, partial(call, *args, **kwargs))


async def read_raw(request: Request, limit: int) -> bytes:
    """The raw body, at most `limit` bytes; raises `Problem` (408 or 413)."""
    return await _read_bounded(request, limit)


async def read_model(request: Request, limit: int, model: type[Model]) -> Model:
    """The body as one object of that model; raises `Problem` as `read_json` does, or 422."""
    body = await read_json(request, limit)
    try:
        return model.model_validate(body.value)
    except ValidationError as error:
        raise invalid(field_errors([dict(item) for item in error.errors(include_url=False)])) from None


async def read_form(request: Request, limit: int) -> dict[str, str]:
    """The fields of a plain form, each given once; raises `Problem` (400, 408, 413 or 415)."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _FORM:
        raise _unsupported(f"Content-Type {media_type!r} is not supported. Send a form.", {"Accept": _FORM})
    raw = await _read_bounded(request, limit)
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, errors="strict"
        )
    except ValueError:
        raise _unreadable_form("The form cannot be decoded.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _unreadable_form("A field of the form appears twice.")
    return fields


def _unreadable_form(detail: str) -> Problem:
    return Problem(status=400, kind="broken-form", title="The form is malformed", detail=detail)


def request_hash(request: Request, raw: bytes) -> str:
    """The request that an idempotency key is bound to: method, path, query and body."""
    head = f"{request.method}\n{request.url.path}\n{request.url.query}\n"
    return hashlib.sha256(head.encode("utf-8", "backslashreplace") + raw).hexdigest()


def idempotency_key(request: Request) -> str | None:
    """The `Idempotency-Key` header, checked; None when there is none."""
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    key = values[0]
    visible = all("!" <= char <= "~" for char in key)
    if len(values) > 1 or not visible or not 1 <= len(key) <= MAX_KEY_CHARS:
        raise invalid(
            [
                FieldError(
                    field="Idempotency-Key",
                    value=", ".join(values),
                    message="is not a single valid key",
                    fix=f"send the header once, 1 to {MAX_KEY_CHARS} visible ASCII characters, "
                    "for example a UUID",
                )
            ]
        )
    return key


def _check_media_type(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", ""}:
        raise _unsupported(
            f"Content-Encoding {encoding!r} is not supported. Send the body uncompressed.",
            {"Accept-Encoding": "identity"},
        )
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    accept = {"Accept": "application/json"}
    if media_type.strip().lower() != "application/json":
        given = f"Content-Type {media_type.strip()!r}" if media_type.strip() else "A missing Content-Type"
        raise _unsupported(f"{given} is not supported. Send 'Content-Type: application/json'.", accept)
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in {"utf-8", "utf8"}:
            raise _unsupported(f"Charset {value.strip()!r} is not supported. JSON is UTF-8.", accept)


async def _read_bounded(request: Request, limit: int) -> bytes:
    """The body; a declared length over the limit is rejected before anything is read."""
    too_large = Problem(
        status=413,
        kind="too-large",
        title="The body is too large",
        detail=f"The limit is {limit} bytes. Send fewer entries per request, or raise MAX_BODY_BYTES.",
        headers={"Connection": "close"},
    )
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise too_large
    async with deadline(BODY_TIMEOUT_SECONDS, too_slow):
        return await read_bounded(request.stream(), limit, lambda: too_large)


def too_slow() -> Problem:
    """The refusal of a body that is still incomplete after `BODY_TIMEOUT_SECONDS`."""
    return Problem(
        status=408,
        kind="too-slow",
        title="The body did not arrive in time",
        detail=f"The whole body must arrive within {BODY_TIMEOUT_SECONDS:.0f} s.",
        headers={"Connection": "close"},
    )
