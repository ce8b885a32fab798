"""Log setup: the agent's lines from LOG_LEVEL on, libraries' warnings, and no credentials.

Used by every process that starts; the server's own handlers are included, because
what fails inside it is logged with a traceback that repeats an upstream's words.
A line is text, or one JSON object that names the incident it is about.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from app.redaction import redacted

JSON_LINES = "json"
"""The value of LOG_FORMAT for one JSON object a line."""

_FORMAT = "%(levelname)s:     %(message)s"
_HANDLED = ("", "uvicorn", "uvicorn.access", "uvicorn.error")
_INCIDENT = re.compile(r"\binc_[0-9a-f]{32}\b")

_incident: ContextVar[str | None] = ContextVar("incident", default=None)


@contextmanager
def about_incident(incident_id: str) -> Iterator[None]:
    """What is logged inside, by this task and those it starts, is about this incident."""
    token = _incident.set(incident_id)
    try:
        yield
    finally:
        _incident.reset(token)


class Redacting(logging.Formatter):
    """Formats as another formatter does, tracebacks included, and takes credentials out."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return redacted(self._inner.format(record))


class JsonLines(logging.Formatter):
    """One JSON object a line, without credentials.

    `time` (UTC), `level`, `logger` and `message`; `incident` where the line is about one, and
    `error` with the traceback where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        named = _incident.get() or next(iter(_INCIDENT.findall(message)), None)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(message),
        }
        if named is not None:
            line["incident"] = named
        if record.exc_info:
            line["error"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def show_log(level: str, log_format: str = "text") -> None:
    """Let the agent's own log reach the terminal beside the server's; libraries only warn."""
    logging.basicConfig(format=_FORMAT, level=logging.WARNING)
    set_level(level)
    for name in _HANDLED:
        for handler in logging.getLogger(name).handlers:
            inner = handler.formatter or logging.Formatter()
            if log_format == JSON_LINES:
                handler.setFormatter(JsonLines())
            elif not isinstance(inner, Redacting | JsonLines):
                handler.setFormatter(Redacting(inner))


def set_level(level: str) -> None:
    """Print the agent's own log from this level on."""
    logging.getLogger("app").setLevel(level.upper())
