"""A file that people change while the agent runs: its last valid content is in force."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from app.errors import ConfigurationError

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_EVERY_SECONDS = 2.0
"""How often a file is looked at."""

_State = tuple[int, int, int]


class WatchedFile(Generic[T]):
    """The content of a file, as of its last valid state."""

    def __init__(self, file: Path, kind: str, read: Callable[[Path], T], content: T | None = None) -> None:
        """`kind`: what a log line calls it. Without `content` it is read now; raises `ConfigurationError`."""
        self.file = file
        self.kind = kind
        self.problem: str | None = None
        """Why the newest content is not in force; None: it is."""
        self._read = read
        # Of a content that was read before, it is unknown in which state the file was then.
        self._seen = None if content is not None else state_of(file)
        self.content: T = read(file) if content is None else content

    def reload(self) -> bool:
        """Read the file where it changed since; True if other content is in force now.

        An invalid or missing file leaves the content as it is, and is logged once. It is read again
        each time: the mistake may be in a file that it names.
        """
        state = state_of(self.file)
        if state == self._seen and state is not None and self.problem is None:
            return False
        try:
            content = self._read(self.file)
        except ConfigurationError as error:
            words = " ".join(str(error).split())
            if self.problem != words:
                log.warning("%s invalid, its last valid content stays in force: %s", self.kind, words)
            self.problem = words
            return False
        self._seen, self.problem = state, None
        changed, self.content = content != self.content, content
        return changed


def state_of(file: Path) -> _State | None:
    """What changes with the content of a file, also where a mount replaces it; None: it cannot be read."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
