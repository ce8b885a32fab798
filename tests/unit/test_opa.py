"""The policy engine's client: only a complete decision is one (promise 7), over a real connection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.identity.people import ApprovalTerms
from app.agent.ids import Json, JsonObject
from app.agent.models import DecisionKind
from app.agent.ports.policy import PolicyAnswer, PolicyEngine
from app.config import Settings
from app.connectors.policy.answers import read_decision
from app.connectors.policy.opa import OpaPolicy
from app.errors import ConfigurationError
from tests.contract.eventually import eventually
from tests.unit.loopback import Behaviour, Loopback, drip, flood, hang, loopback, raw, reply

QUESTION: JsonObject = {"action": {"name": "rollback", "risk": "high"}, "plan_hash": "abc"}


@asynccontextmanager
async def opa(
    behaviour: Behaviour, timeout_seconds: float = 5.0
) -> AsyncIterator[tuple[PolicyEngine, Loopback]]:
    async with loopback(behaviour) as server:
        policy = OpaPolicy(server.url, timeout_seconds=timeout_seconds)
        try:
            yield policy, server
        finally:
            await policy.aclose()


def decided(decision: object, reasons: object = ()) -> Behaviour:
    return reply(200, {"result": {"decision": decision, "reasons": reasons}})


@pytest.mark.parametrize("kind", list(DecisionKind))
async def test_a_complete_decision_is_taken_as_it_is(kind: DecisionKind) -> None:
    """Allow, deny and needs_approval, each with its reasons."""
    async with opa(decided(kind.value, ["because", "and"])) as (policy, _):
        assert await policy.decide(QUESTION) == PolicyAnswer(kind=kind, reasons=("because", "and"))


async def test_the_question_is_put_the_way_opa_wants_it() -> None:
    """As `input`, at the decision's path, with failing builtins made errors."""
    async with opa(decided("allow")) as (policy, server):
        await policy.decide(QUESTION)
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/data/heal/decision")
    assert request.query == {"strict-builtin-errors": ["true"]}
    assert json.loads(request.body) == {"input": QUESTION}
    assert request.headers["content-type"] == "application/json"


ALLOW = {"decision": "allow", "reasons": []}


async def test_who_must_agree_comes_with_the_decision() -> None:
    """Roles, how many people, and who may not; what is left out asks for no more than one yes."""
    for said, terms in (
        ({}, ApprovalTerms()),
        (
            {"roles": ["sre", "lead", "sre"], "people": 2, "not_by": ["ann"]},
            ApprovalTerms(roles=("lead", "sre"), people=2, not_by=("ann",)),
        ),
    ):
        result = {"decision": "needs_approval", "reasons": [], "approval": said}
        async with opa(reply(200, {"result": result})) as (policy, _):
            answer = await policy.decide(QUESTION)
        assert (answer.kind, answer.terms) == (DecisionKind.NEEDS_APPROVAL, terms)


@pytest.mark.parametrize(
    "terms",
    [
        {"role": ["sre"]},
        {"people": 0},
        {"people": 11},
        {"people": "2"},
        {"people": 1.5},
        {"people": None},
        {"roles": "sre"},
        {"roles": [""]},
        {"roles": [1]},
        {"not_by": ["x" * 201]},
        {"roles": ["x"] * 101},
        ["sre"],
        "sre",
        2,
    ],
    ids=str,
)
async def test_terms_that_are_not_understood_are_a_deny(terms: Json) -> None:
    """Read as anything less they would let an action through that more people were to agree to."""
    result = {"decision": "needs_approval", "reasons": [], "approval": terms}
    async with opa(reply(200, {"result": result})) as (policy, _):
        answer = await policy.decide(QUESTION)
    assert answer.kind is DecisionKind.DENY
    assert "no complete decision" in answer.reasons[0]


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(reply(200, {}), id="undefined"),
        pytest.param(reply(200, {"result": {}}), id="empty result"),
        pytest.param(reply(200, {"result": None}), id="null result"),
        pytest.param(reply(200, {"result": True}), id="true"),
        pytest.param(reply(200, {"result": "allow"}), id="word"),
        pytest.param(reply(200, {"result": [ALLOW]}), id="list"),
        pytest.param(reply(200, [{"result": ALLOW}]), id="listed"),
        pytest.param(reply(200, ALLOW), id="not wrapped"),
        pytest.param(reply(200, {"result": {"decision": "allow"}}), id="no reasons"),
        pytest.param(reply(200, {"result": {"reasons": []}}), id="no decision"),
        pytest.param(decided("allow", "because"), id="reasons no list"),
        pytest.param(decided("allow", [1]), id="reason no text"),
        pytest.param(decided("allow", None), id="null reasons"),
        pytest.param(decided("allow", ["x"] * 101), id="endless reasons"),
        pytest.param(decided("ALLOW"), id="shouted"),
        pytest.param(decided("allow "), id="blank"),
        pytest.param(decided("maybe"), id="unknown word"),
        pytest.param(decided(True), id="decision no word"),
        pytest.param(decided(["allow"]), id="decision a list"),
        pytest.param(reply(200, "allow"), id="no JSON"),
        pytest.param(reply(200, ""), id="nothing"),
        pytest.param(reply(200, b"\xff\xfe"), id="no text"),
        pytest.param(reply(200, '{"result":' + "[" * 100_000), id="deep"),
        pytest.param(reply(200, '{"result":{"decision":"allow","reasons":[]}} x'), id="trailing"),
        pytest.param(reply(200, '{"result":{"decision":"allow","reasons":['), id="cut JSON"),
        pytest.param(reply(200, " " * 5_000_000 + json.dumps({"result": ALLOW})), id="5 MB"),
        pytest.param(reply(201, {"result": ALLOW}), id="201"),
        pytest.param(reply(204), id="204"),
        pytest.param(reply(302, {"result": ALLOW}, Location="/v1/data/else"), id="redirect"),
        pytest.param(reply(400, {"result": ALLOW}), id="400"),
        pytest.param(reply(401, {"result": ALLOW}), id="401"),
        pytest.param(reply(404, {"result": ALLOW}), id="404"),
        pytest.param(reply(429, {"result": ALLOW}), id="429"),
        pytest.param(reply(500, {"result": ALLOW}), id="500"),
        pytest.param(hang, id="hangs"),
        pytest.param(drip, id="drips"),
        pytest.param(flood, id="floods"),
        pytest.param(raw(b""), id="hangs up"),
        pytest.param(raw(b"nonsense\r\n\r\n"), id="no HTTP"),
        pytest.param(
            raw(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"result":{"decision":"allow","reasons":[]}}'),
            id="cut off",
        ),
    ],
)
async def test_anything_but_a_complete_decision_is_a_deny_with_its_reason(behaviour: Behaviour) -> None:
    """Even where the body says allow beside a status that does not (promise 7)."""
    async with opa(behaviour, timeout_seconds=0.5) as (policy, _):
        answer = await policy.decide(QUESTION)
    assert answer.kind is DecisionKind.DENY
    assert len(answer.reasons) == 1
    assert "policy engine" in answer.reasons[0]
    assert len(answer.reasons[0]) < 800


async def test_no_listener_is_a_deny() -> None:
    """The engine being down blocks; it never frees."""
    async with loopback(hang) as gone:
        url = gone.url
    policy = OpaPolicy(url)
    answer = await policy.decide(QUESTION)
    await policy.aclose()
    assert answer == PolicyAnswer(
        kind=DecisionKind.DENY,
        reasons=("the policy engine (OPA_URL) cannot be reached",),
        rules=("engine fault",),
    )


async def test_a_slow_yes_is_a_no_and_a_later_question_is_answered() -> None:
    """A time-out leaves the client in order; the breaker denies for a moment, then asks again."""
    async with opa(hang, timeout_seconds=2.5) as (policy, server):
        late = await policy.decide(QUESTION)
        server.behaviour = decided("allow")

        async def answered() -> bool:
            return (await policy.decide(QUESTION)).kind is DecisionKind.ALLOW

        await eventually(answered)
    assert late.kind is DecisionKind.DENY
    assert "within 2.5 s" in late.reasons[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
async def test_a_question_that_cannot_be_written_is_a_deny(value: Json) -> None:
    """Nothing is sent, and nothing is raised."""
    async with opa(decided("allow")) as (policy, server):
        answer = await policy.decide({"value": value})
    assert (answer.kind, server.requests) == (DecisionKind.DENY, [])


async def test_reasons_are_made_safe_to_show() -> None:
    """They go into the timeline: one printable line each, of bounded length."""
    async with opa(decided("deny", ["two\nlines\x1b[31m", "x" * 10_000])) as (policy, _):
        answer = await policy.decide(QUESTION)
    assert answer.reasons[0] == "two lines [31m"
    assert len(answer.reasons[1]) == 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["allow", "deny"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["result", "decision", "reasons", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(body=JSON)
def test_only_the_very_shape_of_an_allow_is_an_allow(body: object) -> None:
    """For any JSON at all: allow comes out only where it stands in full (promise 7)."""
    answer = read_decision(json.dumps(body).encode())
    if answer.kind is DecisionKind.ALLOW:
        assert isinstance(body, dict)
        assert body["result"]["decision"] == "allow"
        assert all(isinstance(reason, str) for reason in body["result"]["reasons"])


@pytest.mark.parametrize(
    ("url", "words"), [(None, "OPA_URL is not set"), ("localhost:8181", "OPA_URL must be an address")]
)
def test_an_address_that_cannot_work_stops_the_start(url: str | None, words: str) -> None:
    """Instead of denying everything later."""
    with pytest.raises(ConfigurationError, match=words):
        OpaPolicy.from_settings(Settings.model_validate({"opa_url": url}))
