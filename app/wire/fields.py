"""Field types of the HTTP models, and the error messages for invalid values.

`app.schemas` builds its requests from these; `app.api.problems` asks `explain`
for the words. Every message comes with a fix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
MAX_LABEL_CHARS = 63
COMMIT_SHA = "[0-9a-fA-F]{4,64}"
MAX_VERSION_CHARS = 128
MAX_LATENCY_MS = 86_400_000.0
MAX_NAME_CHARS = 200
MAX_REMARK_CHARS = 1000
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_NAIVE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9:.]*)?")


def _time(value: object) -> datetime:
    """RFC 3339 with an offset, turned into UTC; numbers and naive times are not guessed at."""
    if not isinstance(value, str):
        raise PydanticCustomError("time", "is not a time")
    if not _RFC3339.fullmatch(value):
        if _NAIVE.fullmatch(value):
            raise PydanticCustomError("time", "is a time without a UTC offset")
        raise PydanticCustomError("time", "is not an RFC 3339 time")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError("time", "is no moment that exists between the years 1 and 9999") from None


_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def span_of(text: str) -> timedelta | None:
    """`30m`, `2h` or `7d` as a length of time; None for anything else."""
    found = _SPAN.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def _time_or_span(value: object) -> datetime | timedelta:
    """RFC 3339 with an offset, or a length of time before now."""
    span = span_of(value) if isinstance(value, str) else None
    return _time(value) if span is None else span


def _happened(value: datetime, info: ValidationInfo) -> datetime:
    """An event's time: not before 2000, and no further ahead than the context's `latest`."""
    return _within(value, (info.context or {}).get("latest"))


def event_time(text: str, latest: datetime) -> datetime:
    """The time of an event as `EventTime` reads it; raises `PydanticCustomError`."""
    return _within(_time(text), latest)


def _within(value: datetime, latest: datetime | None) -> datetime:
    if latest is not None and value > latest:
        raise PydanticCustomError("future", "is too far in the future")
    if value < _EARLIEST:
        raise PydanticCustomError("past", "is before the year 2000")
    return value


def _printable(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise PydanticCustomError("unprintable", "is blank or holds characters that cannot be printed")
    return value


def _printable_or_empty(value: str) -> str:
    return _printable(value) if value else value


def _plain_digits(value: object) -> object:
    """Query strings carry text: take plain digits only."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        return int(value)
    return value if isinstance(value, int) else None


DnsLabel = Annotated[
    str,
    StringConstraints(strict=True, max_length=MAX_LABEL_CHARS, pattern=f"^{LABEL}$"),
]
Moment = Annotated[datetime, BeforeValidator(_time)]
MomentOrSpan = Annotated[
    datetime | timedelta,
    BeforeValidator(_time_or_span),
    WithJsonSchema(
        {
            "type": "string",
            "description": "RFC 3339 with an offset, or a length of time before now: 30m, 2h, 7d.",
            "examples": ["2026-02-20T17:00:00Z", "24h"],
        }
    ),
]
EventTime = Annotated[datetime, BeforeValidator(_time), AfterValidator(_happened)]
Version = Annotated[str, Field(min_length=1, max_length=MAX_VERSION_CHARS), AfterValidator(_printable)]
CommitSha = Annotated[str, StringConstraints(pattern=f"^{COMMIT_SHA}$")]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, le=MAX_LATENCY_MS, allow_inf_nan=False)]
PageLimit = Annotated[int, BeforeValidator(_plain_digits), Field(ge=1, le=200)]
Person = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS), AfterValidator(_printable)]
Remark = Annotated[str, Field(max_length=MAX_REMARK_CHARS), AfterValidator(_printable_or_empty)]
SearchText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]
Cursor = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,512}$")]

TAKEN_FROM_IDENTITY = (
    "Required without configured identity, and not verified then; otherwise the token or session gives it."
)
"""How a request names the person behind it."""

_LABEL_FIX = (
    "use a DNS label (RFC 1123): lower-case letters, digits and '-', at most 63 characters, "
    "with a letter or digit at both ends, such as 'payments-api'"
)
_TIME_FIX = "send RFC 3339 with an offset, such as '2026-02-20T17:00:00Z'"
_RANGE_FIX = f"{_TIME_FIX}, or a length of time before now, such as '24h'"
_FIXES = {
    "service": _LABEL_FIX,
    "environment": _LABEL_FIX,
    "version": f"send the release's version, 1 to {MAX_VERSION_CHARS} printable characters",
    "commit_sha": "send 4 to 64 hexadecimal digits, or leave it out",
    "irreversible": "send true or false",
    "timestamp": _TIME_FIX,
    "error_rate": "send the share of failed requests as a number from 0 to 1, such as 0.13",
    "p95_latency_ms": f"send milliseconds as a number from 0 to {MAX_LATENCY_MS:.0f}",
    "crash_looping": "send true or false",
    "decision": "send approve or deny",
    "by": f"send the name of the person, 1 to {MAX_NAME_CHARS} printable characters",
    "comment": f"send one line of at most {MAX_REMARK_CHARS} printable characters, or leave it out",
    "engaged": "send true or false",
    "reason": f"send one line of at most {MAX_REMARK_CHARS} printable characters",
    "days": "give a number of days above 0, or leave it out for a token that holds until it is revoked",
    "limit": "send a whole number from 1 to 200",
    "cursor": "send the 'next' value of an earlier answer, unchanged",
    "since": _RANGE_FIX,
    "until": _RANGE_FIX,
    "q": "send the words to search for, at most 200 characters",
    "owner": f"send the name of a person, 1 to {MAX_NAME_CHARS} printable characters, or null",
    "text": f"send the note as one line of 1 to {MAX_REMARK_CHARS} printable characters",
}


def explain(error: Mapping[str, object]) -> tuple[str, str]:
    """One pydantic error as (problem, fix), both without a full stop."""
    location = error["loc"]
    name = str(location[-1]) if isinstance(location, tuple) and location else ""
    fix = _FIXES.get(name, "see the request's schema at /docs")
    context = error.get("ctx")
    match error["type"]:
        case "enum" if isinstance(context, Mapping):
            return "is not a valid value", f"send one of {context['expected']}"
        case "no_reason":
            return str(error["msg"]), "say in one line why no action may begin"
        case "missing":
            return "is missing", fix
        case "extra_forbidden":
            return "is an unknown field", "remove it, or look up its name at /docs"
        case "future":
            return str(error["msg"]), "check the sender's clock and time zone, and send the time it happened"
        case "past":
            return str(error["msg"]), "send the time it happened"
        case "limits_too_little":
            return (
                str(error["msg"]),
                "make one token with limits for ingest and read, and another without for the rest",
            )
        case "no_indicator":
            return str(error["msg"]), "send at least one of error_rate, p95_latency_ms, crash_looping"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "is not a JSON object", "send one JSON object, or a list of them"
        case _:
            message = str(error["msg"])
            return message[:1].lower() + message[1:], fix
