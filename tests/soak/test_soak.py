"""The soaks: nothing lost and nothing done twice, with everything killed all the time.

Over a counting stand-in for the cluster. Each takes about a minute at the size of a
change and three at its whole size (`tests.sizes`); SOAK_* variables
(`tests.soak.score.Size`) change it.
Figures are printed and left under `build/soak/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from testbed.kafka import KafkaBroker
from testbed.postgres import PostgresServer, postgres_server
from testbed.redis import RedisServer
from testbed.supervisor import Supervisor
from tests.soak.intakes import HttpIntake, Intake
from tests.soak.processes import Ground
from tests.soak.score import Outage, Score, Size, Trouble, compose
from tests.soak.soak import Report, Stage, ground, play
from tests.soak.stream_intakes import KafkaIntake, RedisIntake

TOPIC = "signals"

pytestmark = pytest.mark.real


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    started = Supervisor()
    yield started
    started.close()


def _adds_up(report: Report) -> None:
    report.publish()
    assert not report.wrong, "\n".join([f"seed {report.score.size.seed}", *report.wrong[:50]])
    assert len(report.killings) == report.score.size.kills
    accepted, expected = report.sent.accepted, report.score.entries
    assert accepted >= expected, f"{accepted} of {expected} signals were acknowledged"
    assert report.books.effects, "nothing was done: a soak in which nothing happens proves nothing"


def test_postgresql_with_every_process_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    """API, workers and watcher on PostgreSQL, which is itself restarted twice and crashed once."""
    score = compose(Size.from_environment())
    with (
        postgres_server(supervisor) as postgres,
        ground(supervisor, tmp_path, postgres.url(postgres.create()), score) as base,
    ):
        apis = [base.agent(f"api-{n}", "run", "--role", "api", serves=True) for n in range(score.size.apis)]
        workers = [base.agent(f"worker-{n}", "worker", serves=False) for n in range(score.size.workers)]
        watch = base.agent("watch-0", "run", "--role", "watch", serves=True)
        stage = Stage(
            ground=base,
            agents=[*apis, *workers, watch],
            intake=HttpIntake([api.url for api in apis], score.size.seed),
            troubles=_going_away(postgres),
            embedded=False,
        )
        report = play("postgresql", score, stage)
    _adds_up(report)
    assert len(report.outages) == 3


def test_sqlite_with_its_one_process_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    """Everything in one process on one file."""
    score = compose(Size.from_environment(workers=1, apis=1))
    with ground(supervisor, tmp_path, f"sqlite:///{tmp_path / 'heal.db'}", score) as base:
        agent = base.agent("all-0", "run", "--role", "all", serves=True)
        stage = Stage(
            ground=base,
            agents=[agent],
            intake=HttpIntake([agent.url], score.size.seed),
            troubles={},
            embedded=True,
        )
        report = play("sqlite", score, stage)
    _adds_up(report)


def test_kafka_with_broker_and_readers_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    """Signals through a real broker that is killed twice, to workers that come, go and are killed."""
    score = compose(Size.from_environment())
    with (
        postgres_server(supervisor) as postgres,
        KafkaBroker(folder=tmp_path / "kafka", supervisor=supervisor) as broker,
        ground(supervisor, tmp_path, postgres.url(postgres.create()), score) as base,
    ):
        broker.create_topic(TOPIC, partitions=8)
        url = f"kafka://{broker.address}/{TOPIC}?session.timeout.ms=3000&heartbeat.interval.ms=500"
        stage = _reading(base, score, url, KafkaIntake(broker.address, TOPIC))
        stage.troubles.update(_going_away(postgres))
        stage.troubles[Trouble.STREAM_KILLED] = _killed_and_back(broker.kill, broker.start)
        report = play("kafka", score, stage)
    _adds_up(report)
    assert len(report.outages) == len(score.outages)


def test_redis_with_server_and_readers_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    """Signals through a Redis that is killed twice with its append-only file on."""
    score = compose(Size.from_environment())
    server = RedisServer(supervisor=supervisor, directory=tmp_path)
    server.start()
    with (
        postgres_server(supervisor) as postgres,
        ground(supervisor, tmp_path, postgres.url(postgres.create()), score) as base,
    ):
        stage = _reading(
            base, score, f"{server.url}?stream={TOPIC}", RedisIntake(server.url, TOPIC, score.size.seed)
        )
        stage.troubles.update(_going_away(postgres))
        stage.troubles[Trouble.STREAM_KILLED] = _killed_and_back(server.kill, server.start)
        report = play("redis", score, stage)
    server.stop()
    _adds_up(report)
    assert len(report.outages) == len(score.outages)


def _reading(base: Ground, score: Score, url: str, intake: Intake) -> Stage:
    """Workers that read a stream, and a watcher; one more worker joins, and leaves regularly."""
    workers = [
        base.agent(f"worker-{number}", "worker", "--from", url, serves=False)
        for number in range(score.size.workers)
    ]
    guest = base.agent("guest", "worker", "--from", url, serves=False)

    async def join(_: Outage) -> None:
        await asyncio.to_thread(guest.start)

    async def leave(_: Outage) -> None:
        await asyncio.to_thread(guest.stop)

    return Stage(
        ground=base,
        agents=[*workers, base.agent("watch-0", "run", "--role", "watch", serves=True)],
        intake=intake,
        troubles={Trouble.WORKER_JOINS: join, Trouble.WORKER_LEAVES: leave},
        embedded=False,
    )


def _killed_and_back(
    kill: Callable[[], None], start: Callable[[], None]
) -> Callable[[Outage], Awaitable[None]]:
    async def go(outage: Outage) -> None:
        await _away(kill, outage, start)

    return go


def _going_away(postgres: PostgresServer) -> dict[Trouble, Callable[[Outage], Awaitable[None]]]:
    """PostgreSQL as an operator restarts it, and as a machine that loses it does."""

    async def restart(outage: Outage) -> None:
        await _away(postgres.stop, outage, postgres.start)

    async def crash(outage: Outage) -> None:
        await _away(postgres.kill, outage, postgres.start)

    return {Trouble.DATABASE_RESTARTED: restart, Trouble.DATABASE_CRASHED: crash}


async def _away(stop: Callable[[], None], outage: Outage, start: Callable[[], None]) -> None:
    await asyncio.to_thread(stop)
    await asyncio.sleep(outage.down_seconds)
    await asyncio.to_thread(start)
