"""Findings of `heal doctor`, and the form of the checks that make them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from app.agent.ids import ServiceKey
from app.clock import Clock
from app.config import Settings


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
    fix: str = ""


@dataclass(slots=True, kw_only=True)
class DoctorRun:
    """The setup that one `heal doctor` checks, and what earlier checks found for later ones."""

    settings: Settings
    clock: Clock
    services: tuple[ServiceKey, ...] | None = None
    """The services of the cluster; None while none was reached."""


Check: TypeAlias = Callable[[DoctorRun], AsyncIterator[Finding]]
"""Yields the findings of one part, and changes nothing outside; handles every `AgentError` itself."""


def ok(check: str, message: str) -> Finding:
    return Finding(check=check, status=Status.OK, message=message)


def warn(check: str, message: str, fix: str) -> Finding:
    return Finding(check=check, status=Status.WARN, message=message, fix=fix)


def fail(check: str, message: str, fix: str) -> Finding:
    return Finding(check=check, status=Status.FAIL, message=message, fix=fix)
