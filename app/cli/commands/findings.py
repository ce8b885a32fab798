"""Findings of `heal doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check, with its fix."""

    check: str
    status: Status
    message: str
    mend: str = ""


def ok(check: str, message: str) -> Finding:
    return Finding(check=check, status=Status.OK, message=message)


def warn(check: str, message: str, mend: str) -> Finding:
    return Finding(check=check, status=Status.WARN, message=message, mend=mend)


def fail(check: str, message: str, mend: str) -> Finding:
    return Finding(check=check, status=Status.FAIL, message=message, mend=mend)
