"""The fast door and the ordinary routes answer every delivery alike, and record the same."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.agent.identity.people import NO_LIMIT, Reach, Scope
from app.api.intake_door.protocol import door_protocol
from app.api.intake_door.reading import deploy_events, metric_events, plain_headers, plain_json
from tests.api.harness import DEPLOY, METRIC, NOW, Harness, harness, make_settings
from tests.api.people import token
from tests.api.wire import post

BELOW = door_protocol(100)
LATEST = NOW + timedelta(minutes=5)
JSON = {"Content-Type": "application/json"}
ORDINARY = {"X-Ordinary-Route": "1"}
"""A header that the fast door does not know."""
_IDS = re.compile(r"(sig|inc)_[0-9a-f]{32}")

ALERT = {
    "status": "firing",
    "labels": {"alertname": "HighErrorRate", "service": "payments-api", "environment": "prod"},
    "annotations": {"summary": "errors"},
    "startsAt": "2026-02-20T17:00:00Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "fingerprint": "1234567890abcdef",
}
DELIVERY = {"version": "4", "status": "firing", "alerts": [ALERT]}

TEMPLATES: list[tuple[str, dict[str, Any]]] = [
    ("/events/metric", METRIC),
    ("/events/deploy", DEPLOY),
    ("/webhooks/alertmanager", ALERT),
]

ODD_NUMBERS = ["-0", "-0.0", "1e999", "1E-400", "NaN", "01", "1.", "0.1e0", "1" * 23, "1_0", "+1", "1e2"]
ODD_TEXTS = [
    '"service-1\\n"',
    '"Service"',
    '"-a"',
    '"a-"',
    '"' + "a" * 63 + '"',
    '"' + "a" * 64 + '"',
    '"\\u0061"',
    '"\u00e9"',
    '"\\ud800"',
    '"a\x01"',
    '"a\\u0000"',
    '""',
    "null",
    "5",
    "true",
    '["a"]',
    '{"a":1}',
]
ODD_TIMES = [
    '"2026-02-20 17:00:00Z"',
    '"2026-02-20T17:00:00"',
    '"2026-02-20t17:00:00z"',
    '"2026-02-20T17:00:00.123456789Z"',
    '"2026-02-20T17:00:00+05:45"',
    '"2026-02-20T17:00:60Z"',
    '"2026-02-20T24:00:00Z"',
    '"0001-01-01T00:00:00+23:59"',
    '"1999-12-31T23:59:59Z"',
    '"2026-03-20T17:00:00Z"',
    '"2026-02-20T17:00:00Z "',
    '"2026-02-20T17:00:00-00:00"',
    "1771606800",
]


@dataclass(frozen=True, kw_only=True)
class Doors:
    """Agents alike: two are sent everything as it is, to the ASGI layer and to the protocol of `heal run`,
    the last so that it takes the ordinary route."""

    fast: Harness
    below: Harness
    ordinary: Harness

    def answers(self, path: str, body: bytes, **headers: str) -> httpx2.Response:
        """The answer of all, which is the same."""
        given = {**JSON, **{k.replace("_", "-"): v for k, v in headers.items()}}
        fast = self.fast.post(path, content=body, headers=given)
        ordinary = self.ordinary.post(path, content=body, headers=given | ORDINARY)
        below = self.below.run(post(self.below, BELOW, path, body, given))
        assert _shape(fast) == _shape(ordinary), body
        assert _shape(below) == _shape(ordinary), body
        return fast


def _shape(answer: httpx2.Response) -> tuple[int, dict[str, str], str]:
    """Status, headers and body, with places instead of identifiers."""
    places: dict[str, str] = {}
    body = _IDS.sub(lambda found: places.setdefault(found[0], f"{found[1]} {len(places)}"), answer.text)
    return answer.status_code, dict(answer.headers), body


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with ExitStack() as stack:
        fast, below, ordinary = (
            stack.enter_context(harness(make_settings(tmp_path_factory.mktemp(name))))
            for name in ("fast", "below", "ordinary")
        )
        yield Doors(fast=fast, below=below, ordinary=ordinary)


def _raw(event: dict[str, Any], **replaced: str) -> str:
    """The event as JSON, with these fields as they are written here."""
    fields = {name: json.dumps(value) for name, value in event.items()} | replaced
    return "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"


def test_plain_deliveries_are_understood() -> None:
    """The bodies of the contract, a list of them, and every optional field left out or null."""
    assert metric_events(_raw(METRIC).encode(), LATEST) is not None
    assert deploy_events(_raw(DEPLOY).encode(), LATEST) is not None
    assert metric_events(f"[{_raw(METRIC)},{_raw(METRIC, error_rate='null')}]".encode(), LATEST) is not None
    without = {name: value for name, value in DEPLOY.items() if name != "commit_sha"}
    assert deploy_events(_raw(without, irreversible="true").encode(), LATEST) is not None
    assert plain_json(json.dumps(DELIVERY).encode()) == DELIVERY
    plain = [(b"host", b"a"), (b"content-type", b"application/json"), (b"content-length", b"5")]
    assert plain_headers(plain) is not None


@pytest.mark.parametrize("given_twice", [*METRIC])
def test_a_field_that_is_given_twice_is_left_to_the_ordinary_route(given_twice: str) -> None:
    """The decoder of the fast door takes the last of them."""
    body = _raw(METRIC)[:-1] + f',"{given_twice}":{json.dumps(METRIC[given_twice])}}}'
    assert metric_events(body.encode(), LATEST) is None
    assert metric_events(f"[{_raw(METRIC)},{body}]".encode(), LATEST) is None


@pytest.mark.parametrize("version", ["1.15.0 password=hunter2", "https://ann:hunter2@ci.example/7"])
def test_a_version_with_a_credential_is_left_to_the_ordinary_route(version: str) -> None:
    """The fast door keeps a version as it is; the ordinary route takes the credential out."""
    body = _raw(DEPLOY, version=json.dumps(version))
    assert deploy_events(body.encode(), LATEST) is None
    assert deploy_events(f"[{_raw(DEPLOY)},{body}]".encode(), LATEST) is None


def test_both_doors_answer_odd_bodies_alike(doors: Doors) -> None:
    """Every field with every odd value, alone and after an event that is well-formed."""
    for event, path in ((METRIC, "/events/metric"), (DEPLOY, "/events/deploy")):
        odd = [
            *(
                _raw(event, **{name: text})
                for name in ("service", "environment", "version", "commit_sha", "status", "irreversible")
                if name in event or name == "irreversible"
                for text in ODD_TEXTS
            ),
            *(_raw(event, timestamp=time) for time in ODD_TIMES),
            *(
                _raw(event, **{name: number})
                for name in ("error_rate", "p95_latency_ms", "crash_looping")
                if name in event
                for number in [*ODD_NUMBERS, '"0.1"', "true"]
            ),
            _raw(event, unknown="1"),
            _raw(event)[:-1] + ',"service":"other"}',
            "[" + _raw(event),
            _raw(event) + "x",
            "\ufeff" + _raw(event),
            "[]",
            f"[[{_raw(event)}]]",
            "  " + _raw(event) + " \n",
            f" [ {_raw(event)} ] ",
        ]
        for body in odd:
            doors.answers(path, body.encode("utf-8", "surrogatepass"))
        together = f"[{_raw(event)},{odd[0]}]"
        doors.answers(path, together.encode("utf-8", "surrogatepass"))


_value = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([*METRIC.values(), *DEPLOY.values(), "failed", "a" * 64, 0, 1, 86_400_000])
)


@st.composite
def _bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    path, template = draw(st.sampled_from(TEMPLATES))
    entries = []
    for _ in range(draw(st.integers(1, 3))):
        event: dict[str, Any] = dict(template)
        for name in draw(st.lists(st.sampled_from([*template, "irreversible"]), max_size=2)):
            event[name] = draw(_value)
        if draw(st.booleans()):
            event["service"] = draw(st.sampled_from(["a", "b"]))
        entries.append(event)
    body: Any = entries[0] if len(entries) == 1 else entries
    if path.startswith("/webhooks"):
        body = {**DELIVERY, "alerts": entries}
    return path, json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@settings(max_examples=120, deadline=None, suppress_health_check=[*HealthCheck])
@given(given=_bodies())
def test_both_doors_answer_generated_bodies_alike(doors: Doors, given: tuple[str, bytes]) -> None:
    """Status, headers and every byte of the body but the identifiers, in the same order of deliveries."""
    doors.answers(*given)


def test_both_doors_answer_odd_requests_alike(doors: Doors) -> None:
    """Headers, methods and paths that the fast door does not know, and alerts of every kind."""
    metric, delivery = _raw(METRIC).encode(), json.dumps(DELIVERY).encode()
    for headers in (
        {"Idempotency_Key": "one"},
        {"Idempotency_Key": "one"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/json; charset=latin-1"},
        {"Content_Encoding": "gzip"},
        {"Origin": "http://evil.example"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic wrong"},
        {"X_Forwarded_For": "10.0.0.1"},
        {"Host": "evil.example"},
        {"Host": ""},
    ):
        doors.answers("/events/metric", metric, **headers)
        doors.answers("/webhooks/alertmanager", delivery, **headers)
    for path in ("/events/metric/", "/events/metric?a=1", "/events/other"):
        doors.answers(path, metric)
    for body in (
        b'{"version":"4","alerts":[]}',
        b'{"version":"9","alerts":[{}]}',
        delivery.replace(b'"errors"', b'"\\u0000"'),
        delivery.replace(b'"errors"', b'"\\ud800"'),
        delivery.replace(b'"errors"', b"-0"),
        delivery.replace(b'"errors"', b"123456789012345678901234567890"),
        delivery.replace(b'"version"', b'"version":"4","version"'),
        delivery.replace(b'"firing"', b'"resolved"'),
        delivery.replace(b'"service"', b'"thing"'),
        delivery[:-3],
        b"[" * 50 + b"]" * 50,
        json.dumps({**DELIVERY, "alerts": [ALERT, {"status": 5}]}).encode(),
        json.dumps({**DELIVERY, "truncatedAlerts": 3}).encode(),
    ):
        doors.answers("/webhooks/alertmanager", body)


def test_what_both_doors_record_is_the_same(doors: Doors) -> None:
    """The signal as it is shown afterwards, its sender included."""
    event = METRIC | {"service": "recorded", "error_rate": 0.01, "crash_looping": False}
    shown = []
    body = json.dumps(event).encode()
    for api, answer in (
        (doors.fast, doors.fast.post("/events/metric", json=event)),
        (doors.ordinary, doors.ordinary.post("/events/metric", json=event, headers=ORDINARY)),
        (doors.below, doors.below.run(post(doors.below, BELOW, "/events/metric", body, JSON))),
    ):
        shown.append(api.get(f"/signals/{answer.json()['signal_id']}"))
    assert _shape(shown[0]) == _shape(shown[1]) == _shape(shown[2])


def test_scopes_and_limits_of_tokens_hold_at_both_doors(tmp_path: Path) -> None:
    """No token, a wrong one, one without the scope, one for another service, one that may."""
    with ExitStack() as stack:
        fast, below, ordinary = (
            stack.enter_context(
                harness(make_settings(_folder(tmp_path / name), require_identity=True, lockout_attempts=3))
            )
            for name in ("fast", "below", "ordinary")
        )
        every = Doors(fast=fast, below=below, ordinary=ordinary)
        limited = Reach(services=frozenset({"other"}))
        proofs = [
            [token(api, "pipeline", scope, reach=reach) for api in (fast, below, ordinary)]
            for scope, reach in ((Scope.READ, NO_LIMIT), (Scope.INGEST, limited), (Scope.INGEST, NO_LIMIT))
        ]
        body, delivery = _raw(METRIC).encode(), json.dumps(DELIVERY).encode()
        for path, sent in (("/events/metric", body), ("/webhooks/alertmanager", delivery)):
            assert every.answers(path, sent).status_code == 401
            for (here, lower, there), status in zip(proofs, (403, 403, 202), strict=True):
                first = fast.post(path, content=sent, headers=JSON | here)
                second = ordinary.post(path, content=sent, headers=JSON | there | ORDINARY)
                third = below.run(post(below, BELOW, path, sent, JSON | lower))
                assert _shape(first) == _shape(second) == _shape(third)
                assert first.status_code == status
        guess = {"Authorization": "Bearer heal_tok_00_00"}
        wrong = [every.answers("/events/metric", body, **guess) for _ in range(5)]
        assert [one.status_code for one in wrong] == [401, 401, 401, 429, 429]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


async def _sent_in_pieces(api: Harness, pieces: list[bytes], *, ends: bool) -> list[dict[str, Any]]:
    body = b"".join(pieces)
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/events/metric",
        "raw_path": b"/events/metric",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "headers": [
            (b"host", b"127.0.0.1:8000"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
    }
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if ends:
        waiting[-1]["more_body"] = False
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await api.app(scope, receive, send)
    return sent


@pytest.mark.parametrize(("ends", "status"), [(True, 202), (False, 400)])
def test_a_body_in_pieces_is_read_whole_or_not_at_all(doors: Doors, ends: bool, status: int) -> None:
    """Pieces become one body; a connection that closes before its end records nothing."""
    body = _raw(METRIC | {"service": "pieces"}).encode()
    sent = doors.fast.run(_sent_in_pieces(doors.fast, [body[:20], body[20:50], body[50:]], ends=ends))
    assert sent[0]["status"] == status
