"""Every worker restarted in turn under load, twice: no signal lost, no action repeated.

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
from tests.soak.intakes import HttpIntake
from tests.soak.score import Outage, Size, Trouble, compose
from tests.soak.soak import Stage, ground, play

pytestmark = pytest.mark.real

MOMENTS = (0.2, 0.6)
"""When the workers are restarted, as shares of the time in which signals are sent."""
GRACE_SECONDS = 120.0
"""Far more than a worker needs; one that is killed after it fails the test."""


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    started = Supervisor()
    yield started
    started.close()


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
        workers = [base.agent(f"worker-{n}", "worker", serves=False) for n in range(score.size.workers)]
        watch = base.agent("watch-0", "run", "--role", "watch", serves=True)
        ends: list[int] = []

        async def restart_all(_: Outage) -> None:
            ends.extend([await asyncio.to_thread(one.restart, GRACE_SECONDS) for one in workers])

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
    assert ends == [0] * (len(MOMENTS) * len(workers))
    assert report.ended_alone == ()
    assert report.sent.accepted >= report.score.entries
    assert report.books.effects, "nothing was done: a soak in which nothing happens proves nothing"
