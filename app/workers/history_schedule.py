"""When a running version is next considered for the history.

Pure state, kept by the watcher. A recorded version, or one too young to be trusted, costs nothing; a
version that is not trusted for another reason is considered again after growing waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.agent.ids import ServiceKey
from app.bounds.backoff import Backoff

_LONGEST = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Considered:
    version: str
    next_at: datetime | None
    """None: on record, or not healthy now."""
    tries: int = 0
    written: bool = False


@dataclass(slots=True, kw_only=True)
class HistorySchedule:
    """The version of each service that runs, and when it is next considered."""

    _known: dict[ServiceKey, _Considered] = field(default_factory=dict)

    def saw(self, key: ServiceKey, version: str, earliest: datetime | None) -> None:
        """A look at a service; `earliest` is when its version may be trusted, None if it has a fault."""
        known = self._known.get(key)
        if known is None or known.version != version:
            self._known[key] = _Considered(version=version, next_at=earliest)
        elif not known.written and (earliest is None or known.next_at is None or known.tries == 0):
            self._known[key] = replace(known, next_at=earliest)

    def version(self, key: ServiceKey) -> str | None:
        """The version seen last."""
        known = self._known.get(key)
        return None if known is None else known.version

    def due(self, at: datetime) -> list[ServiceKey]:
        """The services to consider now."""
        return [
            key for key, known in self._known.items() if known.next_at is not None and known.next_at <= at
        ]

    def tried(
        self, key: ServiceKey, version: str | None, *, written: bool, at: datetime, every: timedelta
    ) -> None:
        """Record the result for `version`; another version that runs now keeps its own time."""
        known = self._known.get(key)
        if known is None or known.version != version:
            return
        if written:
            self._known[key] = replace(known, next_at=None, written=True)
            return
        tries = known.tries + 1
        wait = Backoff(first=every, longest=max(every, _LONGEST)).after(tries)
        self._known[key] = replace(known, next_at=at + wait, tries=tries)

    def forget(self, key: ServiceKey) -> None:
        """The service no longer exists."""
        self._known.pop(key, None)
