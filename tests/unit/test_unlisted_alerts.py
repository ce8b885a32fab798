"""The end of an alert that polling found: Alertmanager, which never notified of it, lists it no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent.freshness.all_clear import firing_alerts
from app.agent.freshness.reasons import Reason, alert_name
from app.agent.ids import ServiceKey
from app.agent.models import SignalKind, Trigger
from app.agent.ports.store.incidents import IncidentFilter
from app.bootstrap import Container
from app.connectors.alerts.firing import fingerprints, of_name
from app.connectors.alerts.silences import AlertmanagerSilences
from app.connectors.peer_breaker import PeerBreaker, guarded_alerts
from app.errors import AgentError, PermanentError
from app.testing import VirtualClock
from app.workers.alerts.own_silences import AgentSilences
from app.workers.alerts.poller import AlertPoller
from tests.unit.loopback import Request, loopback, reply
from tests.unit.test_watchdog import MINUTE, agent, alert, deliver, held

SHOP = ServiceKey(environment="prod", service="shop")
ALL = tuple(Trigger)
MISSED = alert("HighErrorRate", namespace="prod", service="shop")


@dataclass(kw_only=True)
class Alertmanager:
    """What the API lists: to the query of a poll, and to one for any state and receiver."""

    firing: list[dict[str, Any]] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)
    """Silenced, of another receiver, or malformed."""
    status: int = 200
    before: Callable[[Request], Awaitable[None]] | None = None
    """What happens between the question and the answer."""

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path.endswith("/silences"):
            await reply(200, [])(request, writer)
            return
        if self.before is not None:
            await self.before(request)
        polls = "receiver" in request.query
        answer = self.firing if polls or self.status != 200 else [*self.firing, *self.others]
        await reply(200 if polls else self.status, answer)(request, writer)


def poller(container: Container, source: AlertmanagerSilences) -> AlertPoller:
    """As a process has it that polls for the first time."""
    listed = guarded_alerts(source, PeerBreaker(name="Alertmanager"), MINUTE)
    return AlertPoller(
        source=listed,
        settings=container.settings,
        signals=container.store.signals,
        incidents=container.store.incidents,
        silences=AgentSilences(
            source=listed, incidents=container.store.incidents, ending=container.world.silence_ending
        ),
        intake=container.intake,
        owners=None,
        clock=container.clock,
        measures=container.measures,
    )


async def still_fires(container: Container) -> bool:
    levels = await container.store.signals.levels(SHOP)
    assert levels is not None
    return bool(firing_alerts(levels.reasons, ALL, container.clock.now()))


async def accepted(container: Container) -> int:
    """How many signals are on record, duplicates included."""
    return (await container.store.figures.figures(container.clock.now())).accepted_signals


async def poll(container: Container, one: AlertPoller, minutes: int) -> None:
    """A round each minute; one without an answer is a round without a conclusion."""
    assert isinstance(container.clock, VirtualClock)
    for _ in range(minutes):
        await container.clock.advance(60)
        try:
            await one.poll()
        except AgentError:
            continue


@asynccontextmanager
async def found(folder: Path) -> AsyncIterator[tuple[Container, Alertmanager, AlertmanagerSilences]]:
    """An alert that polling found, and that no delivery reported."""
    served = Alertmanager(firing=[held(MISSED)])
    async with (
        loopback(served) as server,
        agent(folder, alertmanager_url=server.url, alertmanager_receiver="heal") as one,
    ):
        source = AlertmanagerSilences.from_settings(one.settings)
        await poll(one, poller(one, source), 2)
        assert await still_fires(one)
        yield one, served, source
        await source.aclose()


async def test_an_alert_that_is_listed_no_more_is_over(tmp_path: Path) -> None:
    """After several answers over minutes; the timeline says why, and the process may be another one."""
    async with found(tmp_path) as (one, served, source):
        served.firing = []
        await poll(one, poller(one, source), 4)
        assert await still_fires(one), "a source that restarted lists nothing for minutes"
        await poll(one, poller(one, source), 7)
        assert not await still_fires(one)
        (record,) = (await one.store.incidents.find(IncidentFilter(), limit=9, cursor=None)).items
        timeline = await one.store.incidents.timeline(record.incident.id)
        assert "no longer listed by its source" in " ".join(entry.message for entry in timeline)
        kinds = [signal.kind for signal in await one.store.signals.of_incident(record.incident.id, 99)]
        assert kinds == [SignalKind.ALERT] * 2, "the end is reported once"


@pytest.mark.parametrize(
    ("others", "status"),
    [
        ([held(MISSED, state="suppressed")], 200),
        ([held(MISSED, receiver="another")], 200),
        ([held(MISSED, state="unprocessed")], 200),
        ([{"labels": {}}], 200),
        ([{"fingerprint": ""}], 200),
        (["an alert"], 200),
        ([], 500),
        ([], 403),
        ([], 204),
    ],
    ids=[
        "silenced",
        "other receiver",
        "unprocessed",
        "without one",
        "empty",
        "odd",
        "500",
        "403",
        "empty body",
    ],
)
async def test_no_other_answer_ends_it(tmp_path: Path, others: list[Any], status: int) -> None:
    """Silenced, routed elsewhere, in part, or not at all: nothing shows that it is over."""
    async with found(tmp_path) as (one, served, source):
        served.firing, served.others, served.status = [], others, status
        await poll(one, poller(one, source), 15)
        assert await still_fires(one)


async def test_answers_that_fail_in_between_prove_nothing(tmp_path: Path) -> None:
    """Three answers have to agree, and one with the alert begins the count again."""
    async with found(tmp_path) as (one, served, source):
        polls = poller(one, source)
        for firing in ([], [held(MISSED)], []):
            served.firing = firing
            await poll(one, polls, 4)
        served.status = 503
        await poll(one, polls, 30)
        assert await still_fires(one)


async def test_a_delivered_alert_is_not_ended_by_a_poll(tmp_path: Path) -> None:
    """Its end is delivered: before the poll misses it, and while the poll counts."""
    async with found(tmp_path) as (one, served, source):
        served.firing = []
        polls = poller(one, source)
        await poll(one, polls, 5)
        await deliver(one, MISSED)
        await poll(one, polls, 9)
        await poll(one, poller(one, source), 9)
        assert await still_fires(one)
        await deliver(one, {**MISSED, "status": "resolved", "endsAt": one.clock.now().isoformat()})
        assert not await still_fires(one)


async def test_an_alert_that_is_listed_again_fires_again(tmp_path: Path) -> None:
    """A source that was empty for longer lists it with the start that it had."""
    async with found(tmp_path) as (one, served, source):
        served.firing = []
        polls = poller(one, source)
        await poll(one, polls, 9)
        assert not await still_fires(one)
        served.firing = [held(MISSED)]
        await poll(one, polls, 3)
        assert await still_fires(one)
        served.firing = []
        await poll(one, polls, 9)
        assert not await still_fires(one)


async def reason_of(container: Container) -> Reason:
    levels = await container.store.signals.levels(SHOP)
    assert levels is not None
    (found,) = levels.reasons
    return found


async def test_the_reason_stays_fresh_while_the_alert_is_listed(tmp_path: Path) -> None:
    """Each complete answer shows that it fires; without one, or muted, the reason ages."""
    async with found(tmp_path) as (one, served, source):
        polls, longest = poller(one, source), timedelta(seconds=one.settings.evidence_max_age_seconds)
        for _ in range(20):
            await poll(one, polls, 1)
            assert (await reason_of(one)).stands(one.clock.now(), longest)
        (record,) = (await one.store.incidents.find(IncidentFilter(), limit=9, cursor=None)).items
        assert len(await one.store.incidents.timeline(record.incident.id)) == 1, "it is no news"
        await poll(one, poller(one, source), 10)
        assert (await reason_of(one)).stands(one.clock.now(), longest), "another process goes on with it"
        served.firing, served.others = [], [held(MISSED, state="suppressed")]
        await poll(one, polls, 6)
        assert not (await reason_of(one)).stands(one.clock.now(), longest)
        served.firing = [held(MISSED)]
        await poll(one, polls, 1)
        assert (await reason_of(one)).stands(one.clock.now(), longest)


async def test_an_alert_that_is_not_old_yet_is_not_reported_at_each_poll(tmp_path: Path) -> None:
    """A repeat is a row of the store: one for each half of the longest age."""
    async with found(tmp_path) as (one, _, source):
        before = await accepted(one)
        await poll(one, poller(one, source), 12)
        assert await accepted(one) - before == 4


async def test_an_alert_that_was_delivered_is_left_to_its_deliveries(tmp_path: Path) -> None:
    async with found(tmp_path) as (one, _, source):
        polls = poller(one, source)
        await deliver(one, MISSED)
        before = await accepted(one)
        await poll(one, polls, 12)
        assert await accepted(one) == before


async def test_an_end_that_is_delivered_during_a_poll_is_newer_than_its_answer(tmp_path: Path) -> None:
    """The answer was given before: what it lists is no first sign that the alert fires again."""
    async with found(tmp_path) as (one, served, source):
        other = alert("HighLatency", namespace="prod", service="shop")

        async def meanwhile(request: Request) -> None:
            served.before = None
            assert isinstance(one.clock, VirtualClock)
            await one.clock.advance(5)
            await deliver(one, {**other, "status": "resolved", "endsAt": one.clock.now().isoformat()})

        served.firing, served.before = [held(MISSED), held(other)], meanwhile
        await poll(one, poller(one, source), 1)
        levels = await one.store.signals.levels(SHOP)
        assert levels is not None
        (reason,) = [each for each in levels.reasons if alert_name(each) == "HighLatency"]
        assert reason.withdrawn is not None
        assert reason.repeated_at is None


async def test_a_process_that_takes_over_reports_what_is_listed_again(tmp_path: Path) -> None:
    """Which alerts a poll ended is read from the record, like those that it found."""
    async with found(tmp_path) as (one, served, source):
        served.firing = []
        await poll(one, poller(one, source), 9)
        assert not await still_fires(one)
        served.firing, polls = [held(MISSED)], poller(one, source)
        await poll(one, polls, 3)
        assert await still_fires(one)
        before = await accepted(one)
        await poll(one, polls, 1)
        assert await accepted(one) == before, "it is on record as firing: nothing is left to report"


async def test_an_ended_alert_that_is_delivered_again_is_not_reported_at_each_poll(tmp_path: Path) -> None:
    async with found(tmp_path) as (one, served, source):
        served.firing, polls = [], poller(one, source)
        await poll(one, polls, 9)
        for _ in range(2):
            await deliver(one, MISSED)
            assert isinstance(one.clock, VirtualClock)
            await one.clock.advance(20)
        assert await still_fires(one)
        served.firing, before = [held(MISSED)], await accepted(one)
        await poll(one, polls, 2)
        assert await accepted(one) == before


def test_a_name_is_one_matcher_and_an_odd_one_is_none() -> None:
    assert of_name('a"b\\c')["filter"] == 'alertname="a\\"b\\\\c"'
    assert "filter" not in of_name("")
    assert fingerprints(b'[{"fingerprint": "C0FFEE"}]') == {"c0ffee"}
    with pytest.raises(PermanentError, match="ALERTMANAGER_URL"):
        fingerprints(b'[{"fingerprint": "not hexadecimal"}]')


async def test_a_name_that_is_known_in_part_asks_for_every_alert(tmp_path: Path) -> None:
    """A filter by a shortened name would match nothing, and look like an end."""
    long = {
        **MISSED,
        "labels": {**MISSED["labels"], "alertname": "H" * 300, "heal_trigger": "high_error_rate"},
    }
    served = Alertmanager(firing=[held(long)])
    async with (
        loopback(served) as server,
        agent(tmp_path, alertmanager_url=server.url, alertmanager_receiver="heal") as one,
    ):
        source = AlertmanagerSilences.from_settings(one.settings)
        await poll(one, poller(one, source), 2)
        served.firing, before = [], len(server.requests)
        await poll(one, poller(one, source), 2)
        asked = [
            request.query
            for request in server.requests[before:]
            if request.path.endswith("/alerts") and "receiver" not in request.query
        ]
        assert asked
        assert all("filter" not in query for query in asked)
        await source.aclose()
