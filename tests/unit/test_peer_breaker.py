"""The circuit breaker in front of each source: what a silent peer costs, and when it is asked again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from app.agent.ids import ServiceKey
from app.agent.models import DecisionKind, SliSample
from app.connectors.peer_breaker import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    CircuitState,
    PeerBreaker,
    guarded_metrics,
)
from app.connectors.policy.opa import OpaPolicy
from app.errors import Invalid, TransientError
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.world import World
from app.testing import VirtualClock

AT = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
TIMEOUT_SECONDS = 10.0


@dataclass(kw_only=True)
class Peer:
    """A peer on a virtual clock: silent for its time-out, or answering."""

    clock: VirtualClock
    silent: bool = True
    asked: int = 0
    breaker: PeerBreaker = field(init=False)

    def __post_init__(self) -> None:
        start = self.clock.now()
        self.breaker = PeerBreaker(
            name="the peer", monotonic=lambda: (self.clock.now() - start).total_seconds()
        )

    async def call(self) -> str:
        self.asked += 1
        if self.silent:
            await self.clock.sleep(TIMEOUT_SECONDS)
            raise TransientError("no answer in time")
        return "answer"

    async def ask(self) -> str | TransientError:
        try:
            return await self.breaker.ask(self.call)
        except TransientError as error:
            return error


def state(peer: Peer) -> CircuitState:
    """As a call, so that two looks in a row may differ."""
    return peer.breaker.state


@pytest.fixture
def peer() -> Peer:
    """A silent peer."""
    return Peer(clock=VirtualClock(AT))


async def test_a_silent_peer_costs_one_time_out_for_all(peer: Peer) -> None:
    """Sixty callers in a row wait ten seconds in all, not ten minutes."""
    began = peer.clock.now()

    async def sixty() -> list[str | TransientError]:
        return [await peer.ask() for _ in range(60)]

    answers = await peer.clock.run_until(sixty())
    assert all(isinstance(answer, TransientError) for answer in answers)
    assert (peer.clock.now() - began).total_seconds() == TIMEOUT_SECONDS
    assert peer.asked == 1


async def test_callers_at_the_same_time_share_one_time_out(peer: Peer) -> None:
    """Sixty callers side by side wait as long as one, and count as one failure."""
    await peer.clock.run_until(asyncio.gather(*(peer.ask() for _ in range(60))))
    assert state(peer) is CircuitState.OPEN
    await peer.clock.advance(FIRST_PAUSE_SECONDS)
    assert state(peer) is CircuitState.HALF_OPEN


async def test_one_call_finds_out_whether_the_peer_is_back(peer: Peer) -> None:
    """After the pause one caller waits for the peer, the others are refused at once; its answer closes."""
    await peer.clock.run_until(peer.ask())
    await peer.clock.advance(FIRST_PAUSE_SECONDS)
    probe = asyncio.ensure_future(peer.ask())
    await peer.clock.settle()
    refused = await peer.ask()
    assert isinstance(refused, TransientError)
    assert refused.retry_after is not None
    assert peer.asked == 2
    await peer.clock.run_until(probe)
    assert state(peer) is CircuitState.OPEN
    await peer.clock.advance(LONGEST_PAUSE_SECONDS)
    peer.silent = False
    assert await peer.ask() == "answer"
    assert state(peer) is CircuitState.CLOSED
    assert await peer.ask() == "answer"


async def test_a_probe_that_is_cancelled_lets_the_next_one_ask(peer: Peer) -> None:
    """A pass that ends in the middle of its question does not leave the circuit half-open for good."""
    await peer.clock.run_until(peer.ask())
    await peer.clock.advance(FIRST_PAUSE_SECONDS)
    probe = asyncio.ensure_future(peer.ask())
    await peer.clock.settle()
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    peer.silent = False
    assert await peer.ask() == "answer"


async def test_one_slow_question_between_answered_ones_opens_nothing(peer: Peer) -> None:
    """A query that times out while others are answered is the query's fault, not the peer's."""
    slow = asyncio.ensure_future(peer.ask())
    await peer.clock.settle()
    peer.silent = False
    assert await peer.ask() == "answer"
    peer.silent = True
    await peer.clock.run_until(slow)
    assert state(peer) is CircuitState.CLOSED


async def test_a_refusal_is_an_answer(peer: Peer) -> None:
    """A peer that rejects a question is there."""

    async def refuse() -> str:
        raise Invalid("no such query")

    with pytest.raises(Invalid):
        await peer.breaker.ask(refuse)
    assert state(peer) is CircuitState.CLOSED


async def test_the_pause_grows_up_to_its_bound(peer: Peer) -> None:
    """A peer that stays silent is asked less often, but never less often than the longest pause."""
    for _ in range(12):
        await peer.clock.run_until(peer.ask())
        await peer.clock.advance(LONGEST_PAUSE_SECONDS)
        assert state(peer) is CircuitState.HALF_OPEN


class _Hanging(SandboxMetrics):
    """A metric source whose every question fails, and is counted."""

    def __init__(self) -> None:
        super().__init__(World(VirtualClock(AT)))
        self.asked = 0

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        self.asked += 1
        raise TransientError(f"no answer about {key} at {at}")


async def test_telemetry_behind_an_open_circuit_says_that_the_source_is_unreachable() -> None:
    """An open circuit is a telemetry outage, never a healthy answer (promise 8)."""
    source = _Hanging()
    guarded = guarded_metrics(source, PeerBreaker(name="metrics"))
    key = ServiceKey(environment="prod", service="shop")
    for _ in range(3):
        with pytest.raises(TransientError):
            await guarded.sli(key, AT)
    health = await guarded.telemetry([key], AT)
    assert not health.source_reachable
    assert source.asked == 1


async def test_a_policy_engine_behind_an_open_circuit_denies() -> None:
    """Promise 7: an engine that is not asked means deny, with the reason."""
    policy = OpaPolicy("http://127.0.0.1:1")
    first, second = await policy.decide({}), await policy.decide({})
    await policy.aclose()
    assert first.kind is second.kind is DecisionKind.DENY
    assert "not called for now" in second.reasons[0]
