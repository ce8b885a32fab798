"""Whether alerts arrive: the watchdog alert, missed deliveries, and the agent's own heartbeat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.agent.freshness.watchdog import WatchdogTerms, watchdog_state
from app.agent.models import ALERTS_SOURCE, DispositionKind, IncidentState, Trigger
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.ports.store.signals import Accepted
from app.bootstrap import Adapters, Container, assemble
from app.config import Settings
from app.connectors.alerts.silences import AlertmanagerSilences
from app.connectors.peer_breaker import PeerBreaker, guarded_alerts
from app.connectors.readiness import watchdog_now
from app.connectors.registry import ALERT_FORMATS
from app.errors import PermanentError
from app.store import open_store
from app.testing import VirtualClock
from app.vitals import STILL_SECONDS, Vitals
from app.workers.alerts.own_silences import AgentSilences
from app.workers.alerts.poller import AlertPoller
from app.workers.alerts.watchdog import WatchdogReporter
from app.workers.heartbeat import Heartbeat
from tests.sqlite_template import migrated
from tests.unit.loopback import Request, loopback, reply

START = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@asynccontextmanager
async def agent(folder: Path, **changed: Any) -> AsyncIterator[Container]:
    """An agent on a virtual clock that is connected to nothing."""
    settings = Settings(_env_file=None, **changed)
    store = await open_store(migrated(folder / "heal.db"))
    container = assemble(settings, clock=VirtualClock(START), store=store, world=Adapters())
    try:
        yield container
    finally:
        await container.close()


def alert(name: str, starts_at: datetime = START, *, status: str = "firing", **labels: str) -> dict[str, Any]:
    """One alert as Alertmanager sends it."""
    return {
        "status": status,
        "labels": {"alertname": name, **labels},
        "annotations": {"summary": name},
        "startsAt": starts_at.isoformat(),
        "fingerprint": name.encode().hex()[:16],
    }


async def deliver(container: Container, *alerts: dict[str, Any]) -> tuple[Accepted, ...]:
    """What became of a webhook delivery."""
    delivery = ALERT_FORMATS[0].read({"version": "4", "alerts": list(alerts)})
    batch = delivery.batch(settings=container.settings, received_at=container.clock.now())
    assert batch.unmapped == ()
    return await container.intake.accept(batch.signals)


def reporter(container: Container) -> WatchdogReporter:
    assert container.watchdog is not None
    return WatchdogReporter(
        terms=container.watchdog,
        signals=container.store.signals,
        intake=container.intake,
        clock=container.clock,
        stale_after=container.stale_after,
    )


async def faults(container: Container) -> list[tuple[Trigger, ...]]:
    """The triggers of every incident of the source of alerts."""
    found = await container.store.incidents.find(
        IncidentFilter(service=ALERTS_SOURCE.service, environment=ALERTS_SOURCE.environment),
        limit=10,
        cursor=None,
    )
    return [one.incident.triggers for one in found.items]


async def remark(container: Container) -> str | None:
    """What readiness says of the alerts."""
    return await dict(container.checks)["alerts"]()


@pytest.mark.parametrize(
    ("delivered", "expected", "missing"),
    [
        (None, None, False),
        (None, -20, True),
        (None, -5, False),
        (-20, None, True),
        (-5, None, False),
        (-5, -20, False),
        (60, -20, True),
        (60, None, False),
    ],
    ids=str,
)
def test_a_silence_counts_from_the_last_delivery_or_from_when_it_is_expected(
    delivered: int | None, expected: int | None, missing: bool
) -> None:
    """In minutes from now; a delivery from the future does not count."""

    def at(minutes: int | None) -> datetime | None:
        return None if minutes is None else START + minutes * MINUTE

    terms = WatchdogTerms(alert="Watchdog", longest_silence=15 * MINUTE, expected_since=at(expected))
    assert watchdog_state(terms, at(delivered), START).missing is missing


async def test_a_watchdog_that_stays_away_is_one_fault_and_ends_by_itself(tmp_path: Path) -> None:
    """Every delivery counts, repeated ones too; another process reports no second fault."""
    async with agent(tmp_path) as one:
        clock = one.clock
        assert isinstance(clock, VirtualClock)
        watching = reporter(one)
        await clock.advance(3600)
        await watching.check()
        assert await faults(one) == []  # never delivered: not monitored
        assert await remark(one) == "the alert Watchdog was not delivered yet"
        for disposition in (DispositionKind.IGNORED, DispositionKind.DEDUPLICATED):
            (accepted,) = await deliver(one, alert("Watchdog", severity="none"))
            assert accepted.disposition.kind is disposition
            await clock.advance(600)
            await watching.check()
            assert await remark(one) is None
        assert await faults(one) == []
        await clock.advance(301)
        await watching.check()
        await reporter(one).check()
        assert await faults(one) == [(Trigger.TELEMETRY_OUTAGE,)]
        said = await remark(one)
        assert said is not None
        assert "no delivery of the alert Watchdog since 2026-02-20 18:10:00 UTC" in said
        assert one.watchdog is not None
        assert (await watchdog_now(one.store.signals, one.watchdog, clock)).missing
        await deliver(one, alert("Watchdog", severity="none"))
        await watching.check()
        assert await remark(one) is None
        (record,) = (await one.store.incidents.find(IncidentFilter(), limit=2, cursor=None)).items
        assert "TelemetryFault is resolved" in " ".join(
            entry.message for entry in (await one.store.incidents.timeline(record.incident.id))
        )
        assert record.incident.state is IncidentState.OPEN


@pytest.mark.parametrize(("changed", "monitored"), [({"watchdog_silence_seconds": 0}, False), ({}, True)])
async def test_the_watchdog_is_expected_as_settings_say(
    tmp_path: Path, changed: dict[str, Any], monitored: bool
) -> None:
    """With WATCHDOG_EXPECTED one that never came is a fault; a silence of 0 switches it off."""
    async with agent(tmp_path, watchdog_expected=True, **changed) as one:
        assert (one.watchdog is not None) is monitored
        assert ("alerts" in dict(one.checks)) is monitored
        if monitored:
            assert isinstance(one.clock, VirtualClock)
            await one.clock.advance(901)
            await reporter(one).check()
            assert await faults(one) == [(Trigger.TELEMETRY_OUTAGE,)]


def held(one: dict[str, Any], *, receiver: str = "heal", state: str = "active") -> dict[str, Any]:
    """An alert as the API of Alertmanager lists it."""
    return {
        **{name: value for name, value in one.items() if name != "status"},
        "endsAt": (START + timedelta(hours=9)).isoformat(),
        "updatedAt": START.isoformat(),
        "receivers": [{"name": receiver}],
        "status": {"state": state, "silencedBy": [], "inhibitedBy": []},
    }


async def test_a_missed_delivery_is_found_once(tmp_path: Path) -> None:
    """Not what was delivered, is young, suppressed, or another receiver's; a late delivery is a duplicate."""
    missed = alert("HighErrorRate", namespace="prod", service="shop")
    delivered = alert("HighLatency", namespace="prod", service="cart")
    young = alert("HighErrorRate", START + 10 * MINUTE, namespace="prod", service="young")
    others = [
        held(alert("Watchdog", severity="none")),
        held(alert("A", namespace="prod", service="muted"), state="suppressed"),
        held(alert("B", namespace="prod", service="foreign"), receiver="heal-other"),
    ]
    listed = [held(missed), held(delivered), held(young), *others]

    async def alerts_listed(request: Request, writer: asyncio.StreamWriter) -> None:
        await reply(200, [] if request.path.endswith("/silences") else listed)(request, writer)

    async with (
        loopback(alerts_listed) as server,
        agent(tmp_path, alertmanager_url=server.url, alertmanager_receiver="heal") as one,
    ):
        assert isinstance(one.clock, VirtualClock)
        await deliver(one, delivered)
        await one.clock.advance(600)
        source = AlertmanagerSilences.from_settings(one.settings)

        def poller() -> AlertPoller:
            listed = guarded_alerts(source, PeerBreaker(name="Alertmanager"), MINUTE)
            return AlertPoller(
                source=listed,
                settings=one.settings,
                signals=one.store.signals,
                incidents=one.store.incidents,
                silences=AgentSilences(
                    source=listed, incidents=one.store.incidents, ending=one.world.silence_ending
                ),
                intake=one.intake,
                owners=None,
                clock=one.clock,
                measures=one.measures,
            )

        first = poller()
        assert [await first.poll(), await first.poll(), await poller().poll()] == [1, 0, 0]
        assert server.requests[1].query["receiver"] == ["^heal$"]
        opened = (await one.store.incidents.find(IncidentFilter(), limit=9, cursor=None)).items
        assert sorted(record.incident.key.service for record in opened) == ["cart", "shop"]
        (late,) = await deliver(one, missed)
        assert late.disposition.kind is DispositionKind.DEDUPLICATED
        server.behaviour = reply(200, {"no": "list"})
        with pytest.raises(PermanentError, match="ALERTMANAGER_URL"):
            await first.poll()
        await source.aclose()


async def test_the_heartbeat_stops_with_the_driver() -> None:
    """No call before the driver runs, while it is stuck, or after it has gone; a refused call is no error."""
    seconds = 0.0
    vitals = Vitals(monotonic=lambda: seconds)
    async with loopback(reply(200)) as server:
        settings = Settings(_env_file=None, heartbeat_url=SecretStr(f"{server.url}/ping/secret-of-the-check"))
        beat = Heartbeat.from_settings(settings, vitals, "driver", VirtualClock(START))
        assert beat is not None
        assert await beat.beat() is False
        vitals.moved("driver")
        assert await beat.beat() is True
        seconds += STILL_SECONDS + 1
        assert await beat.beat() is False
        vitals.moved("driver")
        assert await beat.beat() is True
        vitals.gone("driver")
        assert await beat.beat() is False
        assert [one.path for one in server.requests] == ["/ping/secret-of-the-check"] * 2
        vitals.moved("driver")
        server.behaviour = reply(503)
        assert await beat.beat() is False
        await beat.peer.aclose()
    assert Heartbeat.from_settings(Settings(_env_file=None), vitals, "driver", VirtualClock(START)) is None
