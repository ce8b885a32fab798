"""Rendering of the server-side pages: one Jinja2 environment that escapes everything.

`app.api.pages.dashboard` and `app.api.pages.docs` call `render`. No template marks anything
as safe, so text of pipelines, alerts and clusters is never HTML.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from app.agent.evidence.format import confidence, share
from app.agent.ids import Json
from app.agent.responders.attention import next_step, severity, waits_for
from app.durations import age, span
from app.web.times import stamp


def _words(value: str) -> str:
    """`recovered_without_action` in words."""
    return value.replace("_", " ")


def _duration(seconds: float) -> str:
    return age(timedelta(seconds=seconds))


def _unbroken(length: str) -> str:
    """A length of time whose numbers stay on the line of their units in a narrow cell."""
    return re.sub(r"(?<=\d) (?=[a-z])", "\N{NO-BREAK SPACE}", str(length))


def _pretty(value: Json) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("app.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        words=_words,
        confidence=confidence,
        stamp=stamp,
        duration=_duration,
        pretty=_pretty,
        unbroken=_unbroken,
        span=span,
        share=share,
        severity=severity,
        waits_for=waits_for,
        next_step=next_step,
    )
    environment.globals["sandbox"] = None
    return environment


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLabel:
    """What the pages of the sandbox show on top."""

    speed: float
    """Simulated seconds in a second."""
    visitor: str
    """The name that an approval form offers: the local account."""


_ENVIRONMENT = _environment()


def render(template: str, **values: object) -> str:
    """One page as HTML; a value that the template uses and the caller omits is an error."""
    return _ENVIRONMENT.get_template(template).render(**values)
