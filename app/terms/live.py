"""Settings that take effect while the agent runs, from CONFIG_FILE as it changes.

The file is read as at a start: together with the environment and `.env`, which override it.
Guardrails, approvals, the usual objectives and the log level change; every other setting
needs a restart, and is named until then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from app.agent.ids import ServiceKey
from app.agent.models import Objectives
from app.agent.services.terms import ServiceCatalogue, ServiceTerms
from app.config import Settings, load_settings
from app.logs import set_level
from app.settings.live_names import LIVE
from app.settings.watched_file import WatchedFile

log = logging.getLogger(__name__)


class LiveSettings:
    """The settings in force: those of the start, with what may change since."""

    def __init__(self, settings: Settings, read: Callable[[], Settings] = load_settings) -> None:
        """`settings` are those of the start, with CONFIG_FILE; `read` reads all of them again."""
        if settings.config_file is None:
            raise ValueError("settings without CONFIG_FILE do not change")
        self._at_start = settings
        self._file = WatchedFile(settings.config_file, "configuration file", lambda _: read(), settings)
        self.settings = settings
        self.needs_restart: tuple[str, ...] = ()
        """Settings that changed and are not in force, as they are written in the environment."""
        self.objectives: Objectives | None = None
        """The usual objectives; None: those of the start."""

    @property
    def problem(self) -> str | None:
        """Why the newest content of the file is not in force; None: it is."""
        return self._file.problem

    def reload(self) -> bool:
        """Read the file where it changed; True if settings in force changed. An invalid file changes none."""
        if not self._file.reload():
            return False
        newest, before = self._file.content, self.settings
        self.needs_restart = _different(self._at_start, newest, frozenset(Settings.model_fields) - LIVE)
        changed = _different(before, newest, LIVE)
        self.settings = before.model_copy(update={name: getattr(newest, name) for name in LIVE})
        log.info("%s reloaded; in force now: %s", self._file.file, ", ".join(changed) or "nothing new")
        if self.needs_restart:
            log.warning("changed settings that need a restart: %s", ", ".join(self.needs_restart))
        usual = _objectives(self.settings)
        self.objectives = None if usual == _objectives(self._at_start) else usual
        if "LOG_LEVEL" in changed:
            set_level(self.settings.log_level)
        return bool(changed)


class LiveServices:
    """The terms of services, with the usual objectives in force now."""

    def __init__(self, services: ServiceCatalogue, live: LiveSettings) -> None:
        self._services = services
        self._live = live

    @property
    def usual(self) -> Objectives | None:
        """The objectives of services without their own, in force now."""
        return self._live.objectives

    def of(self, key: ServiceKey) -> ServiceTerms | None:
        """The terms of a service, if it has some."""
        return self._services.of(key)

    def all(self) -> Mapping[ServiceKey, ServiceTerms]:
        """Every service with terms."""
        return self._services.all()


def _different(one: Settings, other: Settings, names: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(name.upper() for name in names if getattr(one, name) != getattr(other, name)))


def _objectives(settings: Settings) -> Objectives:
    return Objectives(
        max_error_rate=settings.slo_max_error_rate,
        max_p95_latency_ms=settings.slo_max_p95_latency_ms,
        min_request_rate=settings.slo_min_request_rate,
    )
