"""The promises of the agent's own silences, for a real Alertmanager and its stand-in.

A test module of either imports these tests with `*`, and has a fixture `monitoring`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from app.agent.actions.silence_alerts import silence_of
from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.models import (
    Action,
    ActionName,
    Decision,
    DecisionKind,
    Intent,
    IntentState,
    Risk,
)
from app.config import Settings
from app.connectors.alerts.own_silences import AlertmanagerSilenceWriter
from app.connectors.alerts.silences import AlertmanagerSilences
from app.connectors.silencing.ports import (
    IncidentSilences,
    SilencingReader,
    SilencingRehearsal,
    SilencingWriter,
)
from app.errors import Conflict, Invalid
from app.sandbox.cluster import SandboxCluster
from app.sandbox.world import World
from app.testing import VirtualClock

SHOP = ServiceKey(environment="prod", service="shop")
SHOP_LABELS = {"alertname": "HighErrorRate", "namespace": "prod", "service": "shop", "severity": "page"}
CART_LABELS = {**SHOP_LABELS, "service": "cart"}
INCIDENT, INTENT = IncidentId("inc-1"), IntentId("intent-1")


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """One Alertmanager that answers, whichever it is."""

    url: str
    now: Callable[[], datetime]
    receiver: str

    def settings(self) -> Settings:
        given: dict[str, Any] = {
            "alertmanager_url": self.url,
            "alertmanager_receiver": self.receiver,
            "alertmanager_timeout_seconds": 60,
        }
        return Settings(_env_file=None, **given)

    async def fires(self, labels: dict[str, str], *, ended: bool = False) -> None:
        """An alert began five minutes ago, and perhaps has just ended."""
        now = self.now()
        alert: dict[str, Any] = {"labels": labels, "startsAt": (now - timedelta(minutes=5)).isoformat()}
        if ended:
            alert["endsAt"] = (now - timedelta(seconds=1)).isoformat()
        await self._post("/api/v2/alerts", [alert])

    async def person_silences(self, matchers: dict[str, str], comment: str, hours: float) -> None:
        """A person creates a silence with this comment, or prolongs one of the agent with the same."""
        now = self.now()
        body = {
            "matchers": [
                {"name": name, "value": value, "isRegex": False, "isEqual": True}
                for name, value in matchers.items()
            ],
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(hours=hours)).isoformat(),
            "createdBy": "self-healing-devops-agent",
            "comment": comment,
        }
        await self._post("/api/v2/silences", body)

    async def silences(self) -> list[dict[str, Any]]:
        """Those in force, as the API lists them."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            listed = (await client.get(f"{self.url}/api/v2/silences")).json()
        return [one for one in listed if one["status"]["state"] == "active"]

    async def _post(self, path: str, body: object) -> None:
        async with httpx2.AsyncClient(trust_env=False) as client:
            (await client.post(f"{self.url}{path}", json=body)).raise_for_status()


class Silencer:
    """The ports of the agent over one monitoring, beside a simulated cluster."""

    def __init__(self, monitoring: Monitoring) -> None:
        settings, clock = monitoring.settings(), VirtualClock(monitoring.now())
        cluster = SandboxCluster.over(World(clock))
        self.source = AlertmanagerSilences.from_settings(settings)
        self.api = AlertmanagerSilenceWriter.from_settings(settings)
        self.reader = SilencingReader(cluster=cluster.reader, silences=self.source, clock=clock)
        self.rehearsal = SilencingRehearsal(cluster=cluster.rehearsal, silences=self.source)
        self.writer = SilencingWriter(
            cluster=cluster.writer(), silences=self.source, writer=self.api, clock=clock
        )
        self.ending = IncidentSilences(silences=self.source, writer=self.api, clock=clock)

    async def aclose(self) -> None:
        await self.source.aclose()
        await self.api.aclose()


def silence_action(minutes: int = 30) -> Action:
    return Action(
        name=ActionName.SILENCE_ALERTS,
        risk=Risk.MEDIUM,
        target=silence_of(SHOP),
        parameters={"minutes": minutes, "incident": INCIDENT, "namespace": "prod"},
        expected_effect="",
        undo=None,
    )


def intent_of(action: Action, at: datetime, intent_id: IntentId = INTENT) -> Intent:
    """The intent of a write that began."""
    return Intent(
        id=intent_id,
        incident_id=INCIDENT,
        sequence=1,
        action=action,
        decision=Decision(kind=DecisionKind.ALLOW, reasons=(), plan_hash="h", target_token=None, at=at),
        state=IntentState.EXECUTING,
        dry_run=False,
        rehearsal=None,
        started_at=at,
    )


async def test_a_rehearsal_says_what_would_be_silenced_and_writes_nothing(monitoring: Monitoring) -> None:
    await monitoring.fires(SHOP_LABELS)
    await monitoring.fires(CART_LABELS)
    silencer, action = Silencer(monitoring), silence_action()
    found = await silencer.rehearsal.rehearse(action, await silencer.reader.target(action), None)
    assert found.accepted
    assert 'namespace="prod", service="shop" would be silenced for 30 minutes: 1 firing now' in found.message
    assert await monitoring.silences() == []
    await silencer.aclose()


async def test_a_silence_names_the_service_alone_and_ends_by_itself(monitoring: Monitoring) -> None:
    """Exact conditions, the time that the plan has, and the ids by which it is recognised."""
    await monitoring.fires(SHOP_LABELS)
    await monitoring.fires(CART_LABELS)
    silencer, action = Silencer(monitoring), silence_action(minutes=20)
    before = await silencer.reader.target(action)
    assert before.marker is None
    after = await silencer.writer.apply(action, INTENT, before, None)
    assert after.marker == INTENT
    (made,) = await monitoring.silences()
    assert {(m["name"], m["value"], m["isRegex"]) for m in made["matchers"]} == {
        ("namespace", "prod", False),
        ("service", "shop", False),
    }
    lasts = datetime.fromisoformat(made["endsAt"]) - datetime.fromisoformat(made["startsAt"])
    assert timedelta(minutes=19) < lasts <= timedelta(minutes=20)
    assert made["comment"].endswith("(incident inc-1, intent intent-1)")
    await silencer.aclose()


async def test_one_intent_creates_one_silence(monitoring: Monitoring) -> None:
    """After a crash the silence that is there is recognised; another state is a conflict."""
    await monitoring.fires(SHOP_LABELS)
    silencer, action = Silencer(monitoring), silence_action()
    before = await silencer.reader.target(action)
    await silencer.writer.apply(action, INTENT, before, None)
    again = await silencer.writer.apply(action, INTENT, before, None)
    assert again.marker == INTENT
    with pytest.raises(Conflict):
        await silencer.writer.apply(action, IntentId("another"), before, None)
    assert len(await monitoring.silences()) == 1
    await silencer.aclose()


async def test_alerts_that_do_not_name_the_service_are_not_silenced(monitoring: Monitoring) -> None:
    """By the name of a pod alone, conditions on the rest of its labels would mute the whole namespace."""
    labels = {"alertname": "HighErrorRate", "namespace": "prod", "pod": "shop-7d9c5b8f6d-x2x4z"}
    await monitoring.fires(labels)
    await monitoring.fires(CART_LABELS)
    silencer, action = Silencer(monitoring), silence_action()
    await silencer.writer.apply(action, INTENT, await silencer.reader.target(action), None)
    (made,) = await monitoring.silences()
    assert ("service", "shop") in {(m["name"], m["value"]) for m in made["matchers"]}
    await silencer.aclose()


async def test_a_silence_that_would_mute_another_service_is_refused(monitoring: Monitoring) -> None:
    """An alert in force with the same labels is about something else: rehearsal and write say so."""
    await monitoring.fires(SHOP_LABELS)
    await monitoring.fires({**SHOP_LABELS, "deployment": "cart", "service": "shop", "exported_service": "x"})
    silencer, action = Silencer(monitoring), silence_action()
    scope = await silencer.source.scope(SHOP)
    if not scope.others:
        pytest.fail(f"the alert of another service is not seen: {scope}")
    target = await silencer.reader.target(action)
    assert not (await silencer.rehearsal.rehearse(action, target, None)).accepted
    with pytest.raises(Invalid, match="would mute alerts of"):
        await silencer.writer.apply(action, INTENT, target, None)
    assert await monitoring.silences() == []
    await silencer.aclose()


async def test_only_what_the_incident_created_is_ended(monitoring: Monitoring) -> None:
    """Not the silence of another incident, nor one that a person prolonged; a repetition ends nothing."""
    await monitoring.fires(SHOP_LABELS)
    silencer, action = Silencer(monitoring), silence_action()
    await silencer.writer.apply(action, INTENT, await silencer.reader.target(action), None)
    (made,) = await monitoring.silences()
    await monitoring.person_silences({"service": "shop", "namespace": "prod"}, made["comment"], hours=5)
    other = made["comment"].replace("intent-1", "intent-2")
    await monitoring.person_silences({"service": "shop", "namespace": "prod"}, other, hours=0.4)
    intents = (intent_of(action, monitoring.now()),)
    assert await silencer.ending.end(SHOP, intents) == 1
    assert await silencer.ending.end(SHOP, intents) == 0
    left = await monitoring.silences()
    assert made["id"] not in {one["id"] for one in left}
    assert len(left) == 2
    decided = replace(intents[0], id=IntentId("intent-2"), state=IntentState.DECIDED, started_at=None)
    assert await silencer.ending.end(SHOP, (decided,)) == 0, "a write that never began created nothing"
    await silencer.aclose()


async def test_an_alert_that_the_agent_silences_fires_for_the_agent(monitoring: Monitoring) -> None:
    """Until its end, which the list alone shows; with a silence of a person beside it, it is muted."""
    await monitoring.fires(SHOP_LABELS)
    silencer, action = Silencer(monitoring), silence_action()
    await silencer.writer.apply(action, INTENT, await silencer.reader.target(action), None)
    (own,) = await silencer.source.own_silences(monitoring.now())
    assert (own.incident_id, own.intent_id) == (INCIDENT, INTENT)

    async def firing() -> int:
        return len((await silencer.source.firing({own.id})).entries)

    assert await firing() == 1
    assert (await silencer.source.firing(())).entries == ()
    assert len(await silencer.source.listed("HighErrorRate")) == 1
    await monitoring.person_silences({"service": "shop"}, "migration", hours=1)
    assert await firing() == 0
    await monitoring.fires(SHOP_LABELS, ended=True)
    assert await silencer.source.listed("HighErrorRate") == frozenset()
    await silencer.aclose()
