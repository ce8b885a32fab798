"""Rendering of the server-side pages: one Jinja2 environment that escapes everything.

`app.api.pages.dashboard` and `app.api.pages.docs` call `render`. No template marks anything
as safe, so text of pipelines, alerts and clusters is never HTML.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from jinja2 import Environment, PackageLoader, StrictUndefined

from app.agent.evidence.format import confidence, share
from app.agent.ids import Json
from app.agent.responders.attention import next_step, severity, waits_for
from app.durations import span


def _words(value: str) -> str:
    """`recovered_without_action` in words."""
    return value.replace("_", " ")


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _duration(seconds: float) -> str:
    """A length of time; 0 s for one that a clock set back made negative."""
    return span(timedelta(seconds=max(0.0, seconds)))


def _pretty(value: Json) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


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
        stamp=_stamp,
        duration=_duration,
        pretty=_pretty,
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
