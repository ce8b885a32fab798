"""The protocol of `heal run` says what the server's own says, byte by byte, to every stream of requests."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.agent.identity.people import Scope
from app.api.connections import BoundedProtocol
from app.api.intake_door import protocol as taking
from app.api.intake_door.protocol import DoorProtocol, door_protocol, read_head
from tests.api.harness import DEPLOY, METRIC, Harness, harness, make_settings
from tests.api.people import token
from tests.api.wire import Wire, exchange, post, request

JSON = {"Content-Type": "application/json"}
PLAIN = request("/events/metric", json.dumps(METRIC).encode(), JSON)
RELEASE = request("/events/deploy", json.dumps(DEPLOY).encode(), JSON)
"""It is answered by a task, where no identity is required; plain samples have none."""
HEAD = PLAIN.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
_IDS = re.compile(rb"(sig|inc)_[0-9a-f]{32}")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, Harness]]:
    """Two agents alike."""
    yield from _two(tmp_path_factory)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, Harness]]:
    """Two agents alike that require a token."""
    yield from _two(tmp_path_factory, require_identity=True)


def _two(folders: pytest.TempPathFactory, **changes: Any) -> Iterator[tuple[Harness, Harness]]:
    with ExitStack() as stack:
        below, server = (
            stack.enter_context(harness(make_settings(folders.mktemp(name), **changes)))
            for name in ("below", "server")
        )
        yield below, server


def _alike(pair: tuple[Harness, Harness], pieces: list[bytes | int], answers: int) -> bytes:
    kinds: tuple[type[BoundedProtocol], ...] = (door_protocol(100), BoundedProtocol)
    below, server = (
        _without_ids(api.run(exchange(api, kind, pieces, answers)))
        for api, kind in zip(pair, kinds, strict=True)
    )
    assert below == server
    return below


def _without_ids(said: bytes) -> bytes:
    places: dict[bytes, bytes] = {}
    return _IDS.sub(lambda found: places.setdefault(found[0], b"id %d" % len(places)), said)


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        ([PLAIN], 1),
        ([PLAIN, PLAIN], 2),
        ([PLAIN, 1, PLAIN, 2, PLAIN], 3),
        ([PLAIN + PLAIN], 2),
        ([PLAIN + PLAIN[:30], PLAIN[30:], PLAIN], 3),
        ([HEAD, PLAIN[len(HEAD) :]], 1),
        ([b"\r\n" + PLAIN, PLAIN], 2),
        ([PLAIN[:5], PLAIN[5:]], 1),
        ([PLAIN.replace(b"1.1", b"1.0", 1)], 1),
        ([PLAIN.replace(b"Host", b"Connection: close\r\nHost"), PLAIN], 1),
        ([PLAIN.replace(b"Host", b"Connection: keep-alive\r\nHost"), PLAIN], 2),
        ([PLAIN.replace(b"Host", b"Upgrade: websocket\r\nConnection: upgrade\r\nHost"), PLAIN], 1),
        ([PLAIN.replace(b"Host", b"Expect: 100-continue\r\nHost")], 1),
        ([PLAIN.replace(b"/events", b"http://localhost/events", 1)], 1),
        ([PLAIN.replace(b"Host: localhost", b"Host : localhost")], 1),
        ([PLAIN.replace(b"Content-Length", b"Content-Length: 3\r\nContent-Length")], 1),
        ([PLAIN.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nX")], 1),
        ([PLAIN.replace(b"\r\n", b"\n")], 1),
        # A head that is not complete when the answer before it is given, and a whole request as its value.
        ([PLAIN + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ", 1, PLAIN], 2),
        ([b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 1, PLAIN], 2),
        ([PLAIN.replace(b'"prod"', b'"pr d"'), PLAIN], 2),
    ],
)
def test_streams_are_answered_alike(
    pair: tuple[Harness, Harness], pieces: list[bytes | int], answers: int
) -> None:
    """Requests in pieces, in one piece, behind each other, and with heads of every kind."""
    _alike(pair, pieces, answers)


@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
@given(
    cuts=st.lists(st.integers(0, 3 * len(PLAIN)), max_size=4),
    odd=st.sampled_from([PLAIN, PLAIN[:-1] + b"]", PLAIN.replace(b"/events/metric", b"/events/other", 1)]),
)
def test_streams_cut_anywhere_are_answered_alike(
    pair: tuple[Harness, Harness], cuts: list[int], odd: bytes
) -> None:
    """Three requests, of which the second may be refused, in pieces of any length."""
    stream = PLAIN + odd + PLAIN
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces: list[bytes | int] = [stream[a:b] for a, b in pairwise(places) if a < b]
    _alike(pair, pieces, 3)


def test_only_heads_of_plain_deliveries_are_taken() -> None:
    """The head of the contract's request is; everything that means more or less is not."""
    assert read_head(HEAD) is not None
    for old, new in (
        (b"POST", b"PUT"),
        (b"1.1", b"1.0"),
        (b"/events/metric", b"/events/metric?a=1"),
        (b"/events/metric", b"/events/other"),
        (b"Host", b"Connection: close\r\nHost"),
        (b"Host", b"Expect: 100-continue\r\nHost"),
        (b"Host", b"Host: localhost\r\nHost"),
        (b"Content-Length: ", b"Content-Length: +"),
    ):
        assert read_head(HEAD.replace(old, new, 1)) is None, new


def _of_length(length: int) -> bytes:
    return re.sub(rb"Length: \d+", b"Length: %d" % length, HEAD)


def test_heads_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was used longest ago goes first, and reading one alone keeps nothing."""
    monkeypatch.setattr(taking, "MOST_HEADS", 3)
    heads = taking.Heads()
    for length in range(101, 110):
        for head in map(heads.of, map(_of_length, (100, length))):
            assert head is not None
            heads.keep(head)
        assert heads.of(_of_length(900)) is not None
        assert _of_length(100) in heads._known
    assert sorted(head.headers.length for head in heads._known.values()) == [100, 108, 109]


def test_only_a_sender_that_may_deliver_has_its_head_in_memory(tmp_path: Path) -> None:
    """None of a guessed token, another path, odd or long headers or bodies; a revoked token leaves none."""
    with harness(make_settings(tmp_path, require_identity=True)) as api:
        kind, root, sender = (
            door_protocol(100),
            token(api, "root", Scope.ADMIN),
            token(api, "ann", Scope.INGEST),
        )
        body, path = json.dumps(METRIC).encode(), "/events/metric"

        def answer(path: str, body: bytes, headers: dict[str, str]) -> int:
            return api.run(post(api, kind, path, body, {**JSON, **headers})).status_code

        def known() -> int:
            return len(kind.heads._known)

        assert answer(path, body, {"Authorization": "Bearer guess"}) == 401
        assert answer("/events/other", body, sender) == 404
        assert answer(path, body, {"X-Odd": "1", **sender}) == 202
        assert answer(path, body, {"User-Agent": "a" * 2_048, **sender}) == 202
        assert answer(path, b"[" + body, sender) == 400
        assert known() == 0
        assert answer(path, body, sender) == 202
        assert known() == 1
        [ann] = [one for one in api.get("/tokens", headers=root).json()["items"] if one["name"] == "ann"]
        assert api.request("DELETE", f"/tokens/{ann['id']}", headers=root).status_code == 200
        assert answer(path, body, sender) == 401
        assert known() == 0


async def _taken(api: Harness, request: bytes = PLAIN) -> Wire:
    """A connection whose request was taken and is not answered yet."""
    wire = Wire(api, door_protocol(100))
    wire.protocol.data_received(request)
    assert isinstance(wire.protocol, DoorProtocol)
    assert wire.protocol._taken is not None
    return wire


def test_a_server_that_ends_answers_what_was_taken(pair: tuple[Harness, Harness]) -> None:
    """The answer says that the connection ends, and it ends; an idle one ends at once."""

    async def story() -> None:
        wire = await _taken(pair[0])
        wire.protocol.shutdown()
        assert not wire.closed
        assert b"connection: close\r\n" in await wire.send([], 1)
        assert wire.closed
        idle = Wire(pair[0], door_protocol(100))
        await idle.send([PLAIN], 1)
        idle.protocol.shutdown()
        assert idle.closed

    pair[0].run(story())


@pytest.mark.parametrize("later", [0, 30, None], ids=["nothing", "some of the next", "all of the next"])
@pytest.mark.parametrize(
    ("known", "name", "status"), [(False, "prod", 401), (True, "pr d", 422), (True, "pr\\u006fd", 202)]
)
def test_a_server_that_ends_answers_what_it_does_not_take_in_the_same_way(
    guarded: tuple[Harness, Harness], known: bool, name: str, status: int, later: int | None
) -> None:
    """As the server's own protocol does: the last answer says that the connection ends, and it ends."""

    def said(api: Harness, kind: type[BoundedProtocol]) -> bytes:
        sender = token(api, "ann", Scope.INGEST) if known else {"Authorization": "Bearer guess"}
        body = json.dumps(METRIC).replace("prod", name).encode()
        one = request("/events/metric", body, {**JSON, **sender})

        async def story() -> bytes:
            wire = Wire(api, kind)
            wire.protocol.data_received(one)
            wire.protocol.data_received(one[:later])
            wire.protocol.shutdown()
            await wire.send([], 2 if later is None else 1)
            await asyncio.sleep(0)
            assert wire.closed
            return _without_ids(wire.said)

        return api.run(story())

    below = said(guarded[0], door_protocol(100))
    assert below.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close\r\n" in below.rpartition(b"HTTP/1.1 ")[2]
    assert below == said(guarded[1], BoundedProtocol)


def test_requests_read_in_one_turn_of_the_loop_are_all_counted(
    pair: tuple[Harness, Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound none is taken before another one ends, begun or not."""
    door: Any = pair[0].app
    progress = door.door._progress
    monkeypatch.setattr(progress, "most", 2)

    async def story() -> None:
        wires = [await _taken(pair[0]) for _ in range(2)]
        third = Wire(pair[0], door_protocol(100))
        assert (await third.send([PLAIN], 1)).startswith(b"HTTP/1.1 503 ")
        for wire in wires:
            assert (await wire.send([], 1)).startswith(b"HTTP/1.1 202 ")
        assert progress.is_open
        assert (await third.send([PLAIN], 2)).count(b"HTTP/1.1 202 ") == 1
        cancelled: Any = (await _taken(pair[0], RELEASE)).protocol
        cancelled._taken.cancel()
        await asyncio.wait([cancelled._taken])
        assert not progress.running

    pair[0].run(story())


def test_a_request_in_work_when_the_process_stops_is_refused_as_by_the_ordinary_route(
    tmp_path: Path,
) -> None:
    """It was let in, and has no time left: 503, and the connection ends."""
    with harness(make_settings(tmp_path)) as api:

        async def story() -> None:
            wire = await _taken(api)
            progress: Any = api.app
            await asyncio.sleep(0)
            progress.door._progress._interrupt(None)
            said = await wire.send([], 1)
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b"x-frame-options" in said
            assert wire.closed

        api.run(story())


def test_a_connection_that_rests_too_long_ends_and_one_in_use_does_not(
    pair: tuple[Harness, Harness],
) -> None:
    """The timer runs on while requests are answered, and looks at the last answer when it is over."""

    async def story() -> None:
        wire = Wire(pair[0], door_protocol(100))
        await wire.send([PLAIN], 1)
        assert isinstance(wire.protocol, DoorProtocol)
        wire.protocol.timeout_keep_alive_handler()
        wire.protocol._too_late()
        assert not wire.closed
        wire.protocol._idle_since -= 60
        wire.protocol.timeout_keep_alive_handler()
        assert wire.closed

    pair[0].run(story())


def test_what_a_sender_that_left_has_sent_is_recorded(pair: tuple[Harness, Harness]) -> None:
    """Nothing is written to its connection, and the next sender is answered."""

    async def story() -> None:
        wire = await _taken(pair[0])
        wire.close()
        assert isinstance(wire.protocol, DoorProtocol)
        while wire.protocol._taken is not None:  # noqa: ASYNC110 - the answer comes by a callback
            await asyncio.sleep(0)
        assert wire.said == b""
        assert (await exchange(pair[0], door_protocol(100), [PLAIN], 1)).startswith(b"HTTP/1.1 202 ")

    pair[0].run(story())


def _healthy(second: int, *, as_list: bool = False) -> bytes:
    """A request with healthy samples of a service, each later than those of the request before."""
    event = METRIC | {"service": "well", "error_rate": 0.01, "p95_latency_ms": 10.0, "crash_looping": False}
    events = [event | {"timestamp": f"2026-01-01T00:00:{second + place:02}Z"} for place in range(2)]
    return request("/events/metric", json.dumps(events if as_list else events[0]).encode(), JSON)


def test_healthy_samples_in_order_are_shown_like_every_signal(tmp_path: Path) -> None:
    """One alone, some together, and one that comes again, which names the first."""
    with harness(make_settings(tmp_path)) as api:
        said = api.run(
            exchange(
                api,
                door_protocol(100),
                [_healthy(1), 1, _healthy(3), 2, _healthy(5, as_list=True), 3, _healthy(3), 4],
                4,
            )
        )
        ids = [one.decode() for one in re.findall(rb'"signal_id":"(sig_[0-9a-f]{32})"', said)]
        assert [one.startswith("sig_ffffffffffffffff") for one in ids] == [False, True, True, True, False]
        for signal_id, second in zip(ids, (1, 3, 5, 6, 3), strict=True):
            shown = api.get(f"/signals/{signal_id}").json()
            assert shown["observed_at"].startswith(f"2026-01-01T00:00:{second:02}")
            assert shown["disposition"] == ("deduplicated" if signal_id == ids[-1] else "ignored")
        assert api.get(f"/signals/{ids[-1]}").json()["duplicate_of"] == ids[1]


def test_healthy_samples_in_work_when_the_process_stops_are_answered_once(tmp_path: Path) -> None:
    """503, and the connection ends, whether or not they are recorded then; what was answered is on record."""
    with harness(make_settings(tmp_path)) as api:

        async def story() -> tuple[bytes, bytes]:
            before = await exchange(api, door_protocol(100), [_healthy(1), 1, _healthy(3)], 2)
            wire = Wire(api, door_protocol(100))
            wire.protocol.data_received(_healthy(5))
            progress: Any = api.app
            assert len(progress.door._progress.running) == 1
            progress.door._progress._interrupt(None)
            said = await wire.send([], 1)
            assert wire.closed
            while progress.door._progress.running:  # noqa: ASYNC110 - the answer comes by a callback
                await asyncio.sleep(0)
            return before, said

        before, said = api.run(story())
        assert said.startswith(b"HTTP/1.1 503 ")
        assert said.count(b"HTTP/1.1 ") == 1
        for signal_id in re.findall(rb'"signal_id":"(sig_[0-9a-f]{32})"', before):
            assert api.get(f"/signals/{signal_id.decode()}").status_code == 200
