"""The durable engine: one DBOS workflow per incident, which keeps moving it until it ends.

The workflow is thin on purpose: it drives the loop, whose every step derives from
our own tables, so that a recovered workflow simply starts over and finds its place
(promise 2 does not rest on replay). What DBOS adds is that an incident once woken
is driven again after any crash, without anybody asking. Only this module knows it.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from dbos import DBOS, DBOSConfig, SetWorkflowID
from sqlalchemy.engine import make_url

from app.agent.loop import Loop, Rest
from app.agent.models import IncidentId
from app.clock import Clock
from app.errors import AgentError, ConfigurationError

log = logging.getLogger(__name__)

_APPLICATION_VERSION = "1"
"""Pinned: DBOS recovers no workflow of another version, and ours needs no replay."""

_EXECUTOR = "embedded"
_LONGEST_REST_SECONDS = 60.0
_SHORTEST_REST_SECONDS = 0.05
_REST_AFTER_ERROR_SECONDS = 10.0
_TERMINAL = frozenset({"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"})


def engine_database_url(database_url: str) -> str:
    """Where the engine keeps its own tables: beside a SQLite file, or in the same PostgreSQL."""
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        return url.set(drivername="postgresql").render_as_string(hide_password=False)
    path = Path(url.database or "heal.db")
    return f"sqlite:///{path.with_name(path.stem + '.engine' + path.suffix)}"


def _only_process(database: Path) -> IO[bytes]:
    """Hold a SQLite database for this process alone, until the file is closed or the process dies.

    One process is what lets it take over its predecessor's claims without
    waiting (promise 3). Raises `ConfigurationError` while another one holds it.
    """
    held = database.with_name(database.name + ".lock").open("ab")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise ConfigurationError(
            f"another agent runs on {database.name}: SQLite serves one process; stop it, or name "
            "another DATABASE_URL"
        ) from None
    return held


class DurableRunner:
    """A `Runner` over DBOS. Start it inside the running event loop, once per process."""

    def __init__(self, *, database_url: str, clock: Clock) -> None:
        self._database_url = engine_database_url(database_url)
        self._clock = clock
        self._loop: Loop | None = None
        self._wakes: dict[IncidentId, asyncio.Event] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._lock: IO[bytes] | None = None
        self._workflow: Callable[[str], Coroutine[Any, Any, None]] | None = None

    async def start(self, loop: Loop) -> None:
        """Launch the engine and recover what an earlier process left unfinished."""
        self._loop = loop
        self._stopping = False
        url = make_url(self._database_url)
        if url.get_backend_name() == "sqlite" and url.database:
            self._lock = _only_process(Path(url.database))
            # DBOS leaves SQLite in its rollback journal; write-ahead logging is set once, and stays.
            with sqlite3.connect(url.database) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        config: DBOSConfig = {
            "name": "self-healing-devops-agent",
            "system_database_url": self._database_url,
            "application_version": _APPLICATION_VERSION,
            "executor_id": _EXECUTOR,
            "log_level": "WARNING",
            "enable_otlp": False,
        }
        DBOS(config=config)

        async def incident(incident_id: str) -> None:
            await self._drive(IncidentId(incident_id))

        self._workflow = DBOS.workflow(name="incident", max_recovery_attempts=None)(incident)
        DBOS.launch()

    async def stop(self) -> None:
        """Stop driving; unfinished workflows stay on record and are recovered by the next start."""
        self._stopping = True
        for event in self._wakes.values():
            event.set()
        await self._idle.wait()
        await asyncio.to_thread(DBOS.destroy, destroy_registry=True)
        # DBOS made its own threads the event loop's default and has just ended them.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        self._workflow = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def wake(self, incident_id: IncidentId) -> None:
        """Have the incident looked at now: nudge its workflow, or start one."""
        event = self._wakes.get(incident_id)
        if event is not None:
            event.set()
        elif self._workflow is not None and not self._stopping:
            try:
                with SetWorkflowID(await self._free_workflow_id(incident_id)):
                    await DBOS.start_workflow_async(self._workflow, incident_id)
            except Exception:
                # The signal is durable already; the sweep wakes the incident again.
                log.exception("incident %s could not be woken now", incident_id)

    async def _free_workflow_id(self, incident_id: IncidentId) -> str:
        """The incident's id; with a number when an earlier workflow of it ended before the incident did."""
        workflow_id, attempt = str(incident_id), 1
        while True:
            status = await DBOS.get_workflow_status_async(workflow_id)
            if status is None or status.status not in _TERMINAL:
                return workflow_id
            attempt += 1
            workflow_id = f"{incident_id}/{attempt}"

    async def _drive(self, identifier: IncidentId) -> None:
        if identifier in self._wakes:
            return
        event = self._wakes[identifier] = asyncio.Event()
        self._idle.clear()
        try:
            while True:
                rest = await self._pass(identifier)
                if rest.closed:
                    return
                await self._wait(event, rest)
                if self._stopping:
                    # Leaves the workflow pending, to be recovered by the next start.
                    raise asyncio.CancelledError
        finally:
            del self._wakes[identifier]
            if not self._wakes:
                self._idle.set()

    async def _pass(self, incident_id: IncidentId) -> Rest:
        if self._loop is None:
            raise AgentError("the engine runs without a loop")
        try:
            return await self._loop.advance(incident_id)
        except Exception as error:
            # The worker boundary: an incident is never dropped for a defect.
            log.exception("pass over incident %s failed; it will be tried again", incident_id)
            return await self._defect(incident_id, error)

    async def _defect(self, incident_id: IncidentId, error: Exception) -> Rest:
        if self._loop is None:
            raise AgentError("the engine runs without a loop")
        try:
            return await self._loop.suffer_defect(incident_id, error)
        except Exception:
            log.exception("the failure over incident %s could not be recorded", incident_id)
            return Rest(closed=False, wake_at=None)

    async def _wait(self, event: asyncio.Event, rest: Rest) -> None:
        if rest.wake_at is None:
            seconds = _REST_AFTER_ERROR_SECONDS
        else:
            seconds = (rest.wake_at - self._clock.now()).total_seconds()
        seconds = min(max(seconds, _SHORTEST_REST_SECONDS), _LONGEST_REST_SECONDS)
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return
        event.clear()
