"""Reading request bodies: bounded, and decoded more strictly than the framework does.

The routers that take JSON call `read_json`. It promises that what it returns is
finite, free of duplicate keys, control of depth and of characters that no store
or client can carry, so that nothing behind it can fail on the form of its input.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from starlette.requests import Request

from app.agent.models import Json, JsonObject
from app.api.problems import FieldError, Problem, invalid

MAX_DEPTH = 32
MAX_INTEGER_CHARS = 19
BODY_TIMEOUT_SECONDS = 30.0
MAX_KEY_CHARS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A decoded body with the bytes it came from."""

    raw: bytes
    value: Json


class _Unacceptable(ValueError):
    """JSON that the grammar allows (or Python's decoder does) and this API does not."""


def _broken(detail: str) -> Problem:
    return Problem(status=400, kind="broken-json", title="The body cannot be read as JSON", detail=detail)


def _unsupported(detail: str, headers: dict[str, str]) -> Problem:
    return Problem(
        status=415,
        kind="unsupported-media-type",
        title="The body's form is not supported",
        detail=detail,
        headers=headers,
    )


async def read_json(request: Request, limit: int) -> Body:
    """The body as JSON, at most `limit` bytes; raises `Problem` (400, 408, 413 or 415)."""
    _check_media_type(request)
    raw = await _read_bounded(request, limit)
    return Body(raw=raw, value=decode(raw))


def request_hash(request: Request, raw: bytes) -> str:
    """What an idempotency key is bound to: method, path, query and body."""
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
                    message="is not one usable key",
                    mend=f"send the header once, 1 to {MAX_KEY_CHARS} visible ASCII characters, "
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
    """Count what really arrives: a declared length may be absent or a lie."""
    too_large = Problem(
        status=413,
        kind="too-large",
        title="The body is too large",
        detail=f"At most {limit} bytes are read. Send fewer entries per request, or raise MAX_BODY_BYTES.",
        headers={"Connection": "close"},
    )
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise too_large
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise Problem(
            status=408,
            kind="too-slow",
            title="The body did not arrive in time",
            detail=f"The whole body has to arrive within {BODY_TIMEOUT_SECONDS:.0f} s.",
            headers={"Connection": "close"},
        ) from None
    return b"".join(chunks)


def decode(raw: bytes) -> Json:
    """Strict JSON; raises `Problem` 400 that says where and why."""
    if not raw.strip():
        raise _broken("The body is empty. Send one JSON object, or a list of them.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _broken(f"The body is not UTF-8: byte {error.start} cannot be decoded.") from None
    try:
        value: Json = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_bounded_integer,
        )
    except json.JSONDecodeError as error:
        raise _broken(f"{error.msg} at line {error.lineno}, column {error.colno}.") from None
    except _Unacceptable as error:
        raise _broken(str(error)) from None
    except RecursionError:
        raise _broken(f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    _check_contents(value)
    return value


def _unique_keys(pairs: list[tuple[str, Json]]) -> JsonObject:
    result: JsonObject = {}
    for key, value in pairs:
        if key in result:
            raise _Unacceptable(f"The field {key[:64]!r} appears twice in one object; send it once.")
        result[key] = value
    return result


def _no_constant(name: str) -> NoReturn:
    raise _Unacceptable(f"{name} is not JSON. Leave the field out where there is no finite number.")


def _finite(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise _Unacceptable(f"The number {text[:40]} is too large to be represented; send a finite number.")
    return value


def _bounded_integer(text: str) -> int:
    if len(text) > MAX_INTEGER_CHARS:
        raise _Unacceptable(f"The number {text[:40]} has more than {MAX_INTEGER_CHARS} digits.")
    return int(text)


def _check_contents(root: Json) -> None:
    """Refuse deep nesting, NUL and lone surrogates, wherever they hide; iterative on purpose."""
    pending: list[tuple[str, int, Json]] = [("", 1, root)]
    while pending:
        path, depth, value = pending.pop()
        if isinstance(value, str):
            _check_text(path, value)
            continue
        if not isinstance(value, list | dict):
            continue
        if depth > MAX_DEPTH:
            raise _broken(f"The body is nested deeper than {MAX_DEPTH} levels.")
        pending.extend((child, depth + 1, item) for child, item in _children(path, value))


def _children(path: str, value: list[Json] | JsonObject) -> Iterable[tuple[str, Json]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield f"{path}[{index}]", item
        return
    for key, item in value.items():
        child = f"{path}.{key}" if path else key
        _check_text(child, key)
        yield child, item


def _check_text(path: str, text: str) -> None:
    bad = "\x00" in text or (not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text))
    if not bad:
        return
    raise Problem(
        status=400,
        kind="broken-json",
        title="The body holds a character that no text can carry",
        detail="NUL characters and lone surrogates are refused.",
        errors=[
            FieldError(
                field=path or "body",
                value=text,
                message="holds a NUL character or a lone surrogate",
                mend="remove it, or encode the text properly before sending",
            )
        ],
    )
