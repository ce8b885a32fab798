"""An upgrade of a database with 1,000 incidents in every state, and the way back.

The version before writes them, the present one migrates and reads them and continues one,
and the version before reads all of them again on the newer schema.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.postgres import THROWAWAY, postgres_server
from testbed.supervisor import Supervisor
from testbed.waiting import NotYet, wait_for
from tests.e2e.previous_version import Version, present_version, previous_version
from tests.sizes import whole

pytestmark = pytest.mark.real

FILL = """
import asyncio, sys
from dataclasses import replace
from app.agent.models import IncidentState as State, Verification
from app.store import open_store
from tests.contract.store_values import *
from app.agent.guardrails.limits import Budget

NUMBER = int(sys.argv[2])
STATES = list(State)

async def one(store, number, incident_id):
    state = STATES[number % len(STATES)]
    incident = await loaded(store, incident_id)
    if state is State.OPEN:
        return
    claim = await claimed(store, incident)
    if state is State.AWAITING_APPROVAL:
        waiting = replace(incident, state=state)
        await store.approvals.request(claim, waiting, approval(incident), [note("asked")])
    elif state is State.VERIFYING and number >= 90:  # watched without an action: faster to write
        watched = replace(incident, state=state, verification=Verification(intent_id=None, started_at=NOW))
        await store.incidents.save(claim, watched, [note("watching")])
    elif state.closed:
        await store.incidents.save(claim, closed(incident, state), [note("ended")])
    else:
        act = intent(incident)
        incident = await store.intents.add(claim, incident, act, [note("decided")])
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW)
        if state is State.VERIFYING:
            await store.intents.finish(claim, act.id, outcome(), "uid/8", [note("done")])
            seen = Verification(intent_id=act.id, started_at=NOW)
            incident = replace(await loaded(store, incident_id), state=state, verification=seen)
            await store.incidents.save(claim, incident, [note("verifying")])
    await store.claims.release(claim, None)

async def fill():
    store = await open_store(sys.argv[1])
    signals = [signal(key=key(number)) for number in range(NUMBER)]
    accepted = await store.signals.accept(signals, Deciding(), dry_run=False)
    for start in range(0, NUMBER, 5):
        some = range(start, min(start + 5, NUMBER))
        await asyncio.gather(*(one(store, n, accepted[n].disposition.incident_id) for n in some))
    await store.close()

asyncio.run(fill())
"""
"""Run by the version before: its own code writes what it would have written."""

READ = """
import asyncio, json, sys
from app.agent.ports.store.incidents import IncidentFilter
from app.bootstrap import Adapters, assemble
from app.clock import SystemClock
from app.config import Settings
from app.store import open_store

WHOLE = 90

async def read():
    store = await open_store(sys.argv[1])
    found, cursor = {}, None
    while True:
        page = await store.incidents.find(IncidentFilter(), limit=200, cursor=cursor)
        for one in (item.incident for item in page.items):
            found[one.key.service] = [str(one.state), str(one.version)]
            if int(one.key.service.removeprefix("service-")) < WHOLE:
                record = await store.incidents.get(one.id)
                under_way = any(act.state == "executing" for act in record.intents)
                shown = [len(record.timeline), len(record.intents), len(record.approvals)]
                state = "executing" if under_way else str(one.state)
                found[one.key.service] = [state, *map(str, shown), record.timeline[-1].hash]
        cursor = page.next_cursor
        if cursor is None:
            break
    settings = Settings(_env_file=None, runbooks_dir=sys.argv[3])
    agent = assemble(settings, clock=SystemClock(), store=store, world=Adapters())
    await agent.loop.run_once(sys.argv[2], "prod")
    page = await store.incidents.find(IncidentFilter(service=sys.argv[2]), limit=1, cursor=None)
    print(json.dumps({"found": found, "continued": str(page.items[0].incident.state)}))
    await store.close()

asyncio.run(read())
"""
"""Every incident, the first with their timelines, read by one version, which then continues an open one."""

NUMBER = 1000
STATES = 9
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return previous_version(tmp_path_factory.mktemp("previous"))


@pytest.fixture(params=["sqlite", "postgresql"] if whole() else ["sqlite"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind; for every change SQLite alone, `test_upgrade.py` has the other."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'heal.db'}"
        return
    supervisor = Supervisor()
    try:
        with postgres_server(supervisor, settings=THROWAWAY) as server:
            yield server.tcp_url(server.create())
    finally:
        supervisor.close()


def test_a_thousand_incidents_in_every_state_survive_an_upgrade_and_the_way_back(
    old: Version, database_url: str
) -> None:
    """Each reads the same before, after and back again; open ones continue; the chains verify."""
    new = present_version()
    assert old.schema != new.schema
    old.run(FILL, database_url, str(NUMBER))
    before = _read(old, database_url, "service-0")
    after = _read(new, database_url, "service-9")
    back = _read(old, database_url, "service-18")
    states = [one[0] for one in before["found"].values()]
    assert len(states) == NUMBER
    assert len(set(states)) == STATES
    assert _difference(before, after) == {"service-0"}, "what the old version continued"
    assert _difference(after, back) == {"service-9"}, "what the new version continued"
    assert {before["continued"], after["continued"], back["continued"]} <= {"escalated", "proposed"}
    _verify(new, database_url)


def _verify(version: Version, url: str) -> None:
    """By the command, which is repeated while the database does not answer in time: a machine may be busy."""
    environment = {**os.environ, **version.environment(), "DATABASE_URL": url}
    command = [str(version.python), "-c", "from app.cli import main; main()", "db", "verify", "--json"]

    def verified() -> subprocess.CompletedProcess[str] | NotYet:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return NotYet(done.stderr) if "the database does not answer" in done.stderr else done

    done = wait_for("the records to be verified", verified, timeout_seconds=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr


def _read(version: Version, url: str, continued: str) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = json.loads(
        version.run(READ, url, continued, str(version.tree / "runbooks")).splitlines()[-1]
    )
    return found


def _difference(one: dict[str, dict[str, list[str]]], other: dict[str, dict[str, list[str]]]) -> set[str]:
    return {name for name, shown in one["found"].items() if other["found"][name] != shown}
