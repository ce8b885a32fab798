"""Finds mistyped setting names in the environment and in `.env`. Pure.

Used by the settings, which refuse what was probably mistyped: a limit or an approval
under a name that is not quite right would hold nothing back, and nothing would say so.
The environment holds names of many programs, so that only long ones are compared there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from app.spelling import nearest

ESCAPE = "UNRELATED_NAMES"
"""The setting that lists names which resemble a setting and belong to another program."""

_MOST_EDITS = 2
_SHORT = 4
"""Names up to this length are like many others: one edit."""
_LEAST_IN_ENVIRONMENT = 10
_OF_OTHER_PROGRAMS = frozenset(
    {
        "DATABASE_URI",
        "DATABASE_URLS",
        "DOCKER_HOST",
        "KUBE_CONFIG",
        "KUBE_CONTEXTS",
        "LOG_LEVELS",
        "OIDC_CLIENT_IDS",
        "PUBLIC_URI",
        "PUBLIC_URLS",
        "SESSION_SECRETS",
        "SLACK_API_TOKEN",
        "SLACK_CHANNELS",
        "SLACK_CHANNEL_ID",
        "SLACK_USER",
        "SLACK_USER_ID",
    }
)
"""Settings of well-known programs that lie within two edits of one of the agent's."""
_SERVICE_LINK = re.compile(
    r"[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes sets in every container for every Service of its namespace."""


def mistyped_in_file(names: Iterable[str], known: frozenset[str], unrelated: frozenset[str]) -> Iterator[str]:
    """One sentence for each name of `.env` that is within two edits of a setting."""
    for name in _strange(names, known, unrelated):
        likely = _likely(name, known)
        if likely is not None:
            yield _sentence(name, "in .env", likely)


def mistyped_in_environment(
    names: Iterable[str], known: frozenset[str], unrelated: frozenset[str]
) -> Iterator[str]:
    """The same for the environment: long names with an underscore, of no other program."""
    for name in _strange(names, known, unrelated):
        if len(name) < _LEAST_IN_ENVIRONMENT or "_" not in name.strip("_"):
            continue
        if name in _OF_OTHER_PROGRAMS or _SERVICE_LINK.fullmatch(name):
            continue
        likely = _likely(name, known)
        if likely is not None:
            yield _sentence(name, "in the environment", likely)


def unknown_in_file(
    names: Iterable[str], known: frozenset[str], unrelated: frozenset[str]
) -> tuple[str, ...]:
    """The names of `.env` that are no setting and near none, in order."""
    return tuple(name for name in _strange(names, known, unrelated) if _likely(name, known) is None)


def listed(value: str) -> frozenset[str]:
    """The names of a list with commas, in capitals as settings are compared."""
    return frozenset(part.strip().upper() for part in value.split(",") if part.strip())


def _strange(names: Iterable[str], known: frozenset[str], unrelated: frozenset[str]) -> list[str]:
    return sorted({name.upper() for name in names} - known - unrelated)


@lru_cache(maxsize=4096)
def _likely(name: str, known: frozenset[str]) -> str | None:
    """The setting that a name is probably meant to be."""
    likely = nearest(name, known, most=_MOST_EDITS)
    if likely is not None and len(likely) <= _SHORT:
        return nearest(name, known, most=1)
    return likely


def _sentence(name: str, where: str, likely: str) -> str:
    return (
        f"{name}: unknown setting {where}; did you mean {likely}? "
        f"If it belongs to another program, list it in {ESCAPE}"
    )
