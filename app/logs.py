"""Log setup: the agent's lines from LOG_LEVEL on, libraries' warnings, and no credentials.

Used by every process that starts; the server's own handlers are included, because
what fails inside it is logged with a traceback that repeats an upstream's words.
"""

from __future__ import annotations

import logging

from app.redaction import redacted

_FORMAT = "%(levelname)s:     %(message)s"
_HANDLED = ("", "uvicorn", "uvicorn.access", "uvicorn.error")


class Redacting(logging.Formatter):
    """Formats as another formatter does, tracebacks included, and takes credentials out."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return redacted(self._inner.format(record))


def show_log(level: str) -> None:
    """Let the agent's own log reach the terminal beside the server's; libraries only warn."""
    logging.basicConfig(format=_FORMAT, level=logging.WARNING)
    logging.getLogger("app").setLevel(level.upper())
    for name in _HANDLED:
        for handler in logging.getLogger(name).handlers:
            inner = handler.formatter or logging.Formatter()
            if not isinstance(inner, Redacting):
                handler.setFormatter(Redacting(inner))
