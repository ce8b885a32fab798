"""Anchors as files of a folder: one file each, written once and never opened for writing again.

Called by the duty that writes them daily and by `heal audit`. The folder is meant to
be elsewhere than the database: another disk, a share that only appends, or the mount
of an object store with retention.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from app.agent.audit.anchoring import (
    FORM,
    Anchor,
    Head,
    canonical,
    digest,
)
from app.agent.ids import IncidentId
from app.config import Settings
from app.errors import Conflict, PermanentError

_NAME = re.compile(r"anchor-\d{8}\.json")
_MAX_BYTES = 256 * 1024 * 1024
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class _File(msgspec.Struct):
    form: int
    number: int
    at: str
    previous: str
    incidents: dict[str, tuple[int, str]]
    people: tuple[int, str]
    digest: str
    seal: str | None = None


class AnchorFolder:
    """The anchors of `AUDIT_ANCHOR_DIR`."""

    def __init__(self, folder: Path, key: bytes | None) -> None:
        self.folder = folder
        self.key = key

    @staticmethod
    def from_settings(settings: Settings) -> AnchorFolder | None:
        """None where AUDIT_ANCHOR_DIR is not set."""
        if settings.audit_anchor_dir is None:
            return None
        secret = settings.audit_anchor_key
        key = None if secret is None else secret.get_secret_value().encode()
        return AnchorFolder(settings.audit_anchor_dir, key)

    def read(self) -> tuple[Anchor, ...]:
        """Every anchor by its number; none where the folder does not exist yet. Raises `PermanentError`."""
        try:
            names = sorted(entry.name for entry in self.folder.iterdir() if _NAME.fullmatch(entry.name))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise PermanentError(f"AUDIT_ANCHOR_DIR cannot be read: {error.strerror}") from error
        return tuple(self._read(self.folder / name) for name in names)

    def write(self, anchor: Anchor) -> Path:
        """Keep a new anchor, on disk when this returns; `Conflict` where its number is taken."""
        path = self.folder / f"anchor-{anchor.number:08d}.json"
        body = {**json.loads(canonical(anchor)), "digest": digest(anchor), "seal": anchor.seal}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as stream:
                stream.write(json.dumps(body, sort_keys=True, indent=1) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except FileExistsError:
            raise Conflict(f"anchor {anchor.number} exists already in {self.folder}") from None
        except OSError as error:
            raise PermanentError(f"an anchor cannot be written to {path}: {error.strerror}") from error
        return path

    def _read(self, path: Path) -> Anchor:
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise PermanentError(f"{path} exceeds the size limit of an anchor")
            found = msgspec.json.decode(path.read_bytes(), type=_File)
            at = datetime.strptime(found.at, _TIME).replace(tzinfo=UTC)
        except OSError as error:
            raise PermanentError(f"{path} cannot be read: {error.strerror}") from error
        except (msgspec.DecodeError, ValueError) as error:
            raise PermanentError(f"{path} is not an anchor: {error}") from error
        if found.form != FORM:
            raise PermanentError(f"{path} has form {found.form}, and this program reads form {FORM}")
        anchor = Anchor(
            number=found.number,
            at=at,
            previous=found.previous,
            incidents={
                IncidentId(name): Head(length=length, hash=head)
                for name, (length, head) in found.incidents.items()
            },
            people=Head(length=found.people[0], hash=found.people[1]),
            seal=found.seal,
        )
        if digest(anchor) != found.digest:
            raise PermanentError(f"{path} was modified: its content does not match its digest")
        return anchor
