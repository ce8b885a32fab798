"""The agent's own silences over the stand-in for Alertmanager, and its faults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from app.errors import AgentError, PermanentError, UnknownOutcome
from tests.contract.alertmanager_standin import AlertmanagerStandIn, alertmanager_standin
from tests.contract.silence_suite import *  # noqa: F403 - the suite
from tests.contract.silence_suite import INTENT, SHOP, SHOP_LABELS, Monitoring, Silencer, silence_action

NOW = datetime(2026, 2, 20, 17, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Faulty(Monitoring):
    """The stand-in, whose faults a test sets."""

    standin: AlertmanagerStandIn


@pytest.fixture
async def monitoring() -> AsyncIterator[Faulty]:
    async with alertmanager_standin(lambda: NOW) as standin:
        yield Faulty(url=standin.url, now=lambda: NOW, receiver=standin.receiver, standin=standin)


@pytest.mark.parametrize("status", [500, 503])
async def test_a_server_error_leaves_open_whether_it_was_created(monitoring: Faulty, status: int) -> None:
    await monitoring.fires(SHOP_LABELS)
    silencer, action = Silencer(monitoring), silence_action()
    target = await silencer.reader.target(action)
    scope = await silencer.source.scope(SHOP)
    assert scope.matchers
    monitoring.standin.loses = True
    with pytest.raises(UnknownOutcome):
        await silencer.writer.apply(action, INTENT, target, None)
    assert (await silencer.reader.target(action)).marker == INTENT, "found by its intent"
    monitoring.standin.status = status
    with pytest.raises(AgentError):
        await silencer.reader.target(action)
    await silencer.aclose()


async def test_a_refused_token_is_a_refusal(monitoring: Faulty) -> None:
    """Nothing was created, and the message names the setting."""
    silencer, action = Silencer(monitoring), silence_action()
    monitoring.standin.status = 403
    with pytest.raises(PermanentError, match="ALERTMANAGER_URL"):
        await silencer.reader.target(action)
    await silencer.aclose()
