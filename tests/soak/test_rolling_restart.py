"""Every worker restarted in turn under load, twice, as a Deployment does: no signal lost, no action repeated.

About a minute at the size of a change, three at the whole size (`tests.sizes`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.postgres import postgres_server
from testbed.supervisor import Supervisor
from testbed.waiting import NotYet, wait_for
from tests.soak.intakes import HttpIntake
from tests.soak.processes import Agent
from tests.soak.score import Outage, Size, Trouble, compose
from tests.soak.soak import START_SECONDS, Stage, ground, play

pytestmark = pytest.mark.real

MOMENTS = (0.2, 0.6)
"""When the workers are restarted, as shares of the time in which signals are sent."""
GRACE_SECONDS = 120.0
"""Far more than a worker needs; one that is killed after it fails the test."""
SLOW = 1
"""How a worker ends that took longer than `app.stopping.HARD_SECONDS`, as it does on a slow machine."""


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    started = Supervisor()
    yield started
    started.close()


def _until_ready(worker: Agent) -> None:
    """The next one is restarted after that."""
    wait_for(
        f"{worker.name} to be ready",
        lambda: worker.ready() or NotYet("it is starting"),
        timeout_seconds=START_SECONDS,
    )


def test_a_rolling_restart_of_every_worker_loses_and_repeats_nothing(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    """The accounts of signals, intents and effects add up; each worker ends by itself."""
    score = compose(Size.from_environment())
    rolling = Trouble.WORKERS_RESTARTED
    outages = tuple(
        Outage(at=score.size.seconds * share, down_seconds=0.0, trouble=rolling) for share in MOMENTS
    )
    score = replace(score, size=replace(score.size, kills=0), kills=(), victims=(), outages=outages)
    with (
        postgres_server(supervisor) as postgres,
        ground(supervisor, tmp_path, postgres.url(postgres.create()), score) as base,
    ):
        apis = [base.agent(f"api-{n}", "run", "--role", "api", serves=True) for n in range(score.size.apis)]
        workers = [
            base.agent(f"worker-{n}", "run", "--role", "worker", serves=True)
            for n in range(score.size.workers)
        ]
        watch = base.agent("watch-0", "run", "--role", "watch", serves=True)
        ends: list[int] = []

        async def restart_all(_: Outage) -> None:
            for worker in workers:
                ends.extend([await asyncio.to_thread(worker.restart, GRACE_SECONDS)])
                await asyncio.to_thread(_until_ready, worker)

        stage = Stage(
            ground=base,
            agents=[*apis, *workers, watch],
            intake=HttpIntake([api.url for api in apis], score.size.seed),
            troubles={rolling: restart_all},
            embedded=False,
        )
        report = play("rolling-restart", score, stage)
    report.publish()
    assert not report.wrong, "\n".join([f"seed {report.score.size.seed}", *report.wrong[:50]])
    assert len(ends) == len(MOMENTS) * len(workers)
    assert set(ends) <= {0, SLOW}, "a worker did not end by itself"
    assert report.ended_alone == ()
    assert report.sent.accepted >= report.score.entries
    assert report.books.effects, "nothing was done: a soak in which nothing happens proves nothing"
