"""JSON from outside, decoded more strictly than Python does: the same for HTTP bodies and stream messages.

What `decode` returns is finite, free of duplicate keys, bounded in depth and free
of characters that no store or client can carry, so that nothing behind it can
fail on the form of its input. `decode_leniently` is for webhooks, whose senders
neither wrote what they repeat nor send it again when it is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import NoReturn, TypeVar, cast

from app.agent.ids import Json, JsonObject
from app.errors import Invalid
from app.wire.field_errors import FieldError

MAX_DEPTH = 32
MAX_INTEGER_CHARS = 19

T = TypeVar("T")

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class UnreadableJson(Invalid):
    """The bytes are no JSON that is taken here; the message says where and why."""

    def __init__(
        self,
        message: str,
        *,
        title: str = "The body cannot be read as JSON",
        errors: Sequence[FieldError] = (),
    ) -> None:
        super().__init__(message)
        self.title = title
        self.errors = tuple(errors)


class _Unacceptable(ValueError):
    """JSON that the grammar allows (or Python's decoder does) and this product does not."""


def decode(raw: bytes) -> Json:
    """The value that the bytes stand for; raises `UnreadableJson`."""
    if not raw.strip():
        raise UnreadableJson("The body is empty. Send one JSON object, or a list of them.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableJson(f"The body is not UTF-8: byte {error.start} cannot be decoded.") from None
    try:
        value: Json = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_bounded_integer,
        )
    except json.JSONDecodeError as error:
        raise UnreadableJson(f"{error.msg} at line {error.lineno}, column {error.colno}.") from None
    except _Unacceptable as error:
        raise UnreadableJson(str(error)) from None
    except RecursionError:
        raise UnreadableJson(f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    check_contents(value)
    return value


def decode_leniently(raw: bytes) -> Json:
    """The value of a body whose sender repeats others: one odd entry must not cost the rest.

    A NUL character or a lone surrogate becomes U+FFFD, a number that cannot be
    represented becomes its text, and of a field that appears twice the last
    counts. Raises `UnreadableJson` for bytes that are no JSON at all.
    """
    if not raw.strip():
        raise UnreadableJson("The body is empty. Send one JSON object.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableJson(f"The body is not UTF-8: byte {error.start} cannot be decoded.") from None
    try:
        value: Json = json.loads(text, parse_constant=str, parse_float=_float_or_text, parse_int=_int_or_text)
    except json.JSONDecodeError as error:
        raise UnreadableJson(f"{error.msg} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise UnreadableJson(f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    return _cleaned(value)


def _float_or_text(text: str) -> float | str:
    value = float(text)
    return text if value in {float("inf"), float("-inf")} else value


def _int_or_text(text: str) -> int | str:
    return text if len(text) > MAX_INTEGER_CHARS else int(text)


def _cleaned(root: Json) -> Json:
    """The value without the characters that no store can keep; in place, and iterative on purpose."""
    if isinstance(root, str):
        return _clean_text(root)
    pending: list[Json] = [root]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            entries = {_clean_text(key): _clean_text(item) for key, item in value.items()}
            value.clear()
            value.update(entries)
            pending.extend(value.values())
        elif isinstance(value, list):
            value[:] = [_clean_text(item) for item in value]
            pending.extend(value)
    return root


def _clean_text(value: T) -> T:
    return cast("T", _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)) if isinstance(value, str) else value


def check_contents(root: Json) -> None:
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
            raise UnreadableJson(f"The body is nested deeper than {MAX_DEPTH} levels.")
        pending.extend((child, depth + 1, item) for child, item in _children(path, value))


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
    raise UnreadableJson(
        "NUL characters and lone surrogates are refused.",
        title="The body holds a character that no text can carry",
        errors=[
            FieldError(
                field=path or "body",
                value=text,
                message="holds a NUL character or a lone surrogate",
                fix="remove it, or encode the text properly before sending",
            )
        ],
    )
