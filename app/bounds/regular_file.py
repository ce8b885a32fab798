"""Reading a file that a person or a platform provides: regular, and at most so large.

A pipe would hold its reader, and a device or a very large file would use up the memory.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


class Unsuitable(ValueError):
    """Not a file that is read: the message begins with its path and says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a file held, and who may change it."""

    data: bytes
    writable_by_all: bool


def read(path: str | Path, most: int) -> Content:
    """The whole file of at most `most` bytes; raises `Unsuitable`, or `OSError` where it cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise Unsuitable(f"{path} is not a regular file")
        data = b""
        while len(data) <= most and (more := os.read(descriptor, most + 1)):
            data += more
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise Unsuitable(f"{path} is larger than {most // 1024} KiB; it is probably another file")
    return Content(data=data, writable_by_all=bool(about.st_mode & stat.S_IWOTH))
