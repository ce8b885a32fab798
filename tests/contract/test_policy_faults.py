"""What a real Open Policy Agent can do wrong ends in a deny, through the whole of policy (promise 7)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.agent.models import DecisionKind
from app.agent.policy import Policy
from app.connectors.policy.bundle import shipped_policies
from app.connectors.policy.opa import OpaPolicy
from testbed.freezing import freeze, thaw
from testbed.opa import OpaServer
from testbed.supervisor import Supervisor
from tests.contract.eventually import eventually
from tests.test_policy import LIMITS, QUESTION

pytestmark = pytest.mark.real

TOKEN = "t0p-secret"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OpaServer]:
    """An OPA for this test alone, which requires a token."""
    supervisor = Supervisor()
    try:
        one = OpaServer(supervisor=supervisor, directory=tmp_path, policies=shipped_policies(), token=TOKEN)
        one.start()
        yield one
    finally:
        supervisor.close()


@asynccontextmanager
async def policy_over(
    server: OpaServer, *, timeout_seconds: float = 10, token: str | None = TOKEN
) -> AsyncIterator[Policy]:
    engine = OpaPolicy(
        server.url, timeout_seconds=timeout_seconds, token=None if token is None else SecretStr(token)
    )
    try:
        yield Policy(limits=LIMITS, engine=engine)
    finally:
        await engine.aclose()


async def test_a_killed_server_is_a_deny_until_it_is_back(server: OpaServer) -> None:
    """Nothing of an earlier allow is remembered."""
    async with policy_over(server) as policy:
        before = await policy.decide(QUESTION)
        server.kill()
        meanwhile = await policy.decide(QUESTION)
        server.start()

        async def allowed() -> bool:
            return (await policy.decide(QUESTION)).kind is DecisionKind.ALLOW

        await eventually(allowed, "an allow of the server that is back")  # the breaker waits for a moment
    assert (before.kind, meanwhile.kind) == (DecisionKind.ALLOW, DecisionKind.DENY)
    assert "the policy engine (OPA_URL)" in " ".join(meanwhile.reasons)
    assert meanwhile.rules == ("policy: engine fault",)


async def test_a_hanging_server_is_a_deny(server: OpaServer) -> None:
    """It holds the connection and says nothing; the time limit is the setting's."""
    async with policy_over(server, timeout_seconds=0.5) as policy:
        freeze(server.pid)
        hanging = await policy.decide(QUESTION)
        thaw(server.pid)
    assert hanging.kind is DecisionKind.DENY
    assert "within 0.5 s" in " ".join(hanging.reasons)


@pytest.mark.parametrize("token", [None, "another"])
async def test_a_server_that_does_not_know_us_is_a_deny(server: OpaServer, token: str | None) -> None:
    """And the token stands in no reason."""
    async with policy_over(server, token=token) as policy:
        refused = await policy.decide(QUESTION)
    assert refused.kind is DecisionKind.DENY
    assert "401" in " ".join(refused.reasons)
    assert "another" not in " ".join(refused.reasons)


async def test_a_failing_built_in_is_a_deny(tmp_path: Path) -> None:
    """OPA hides the failure of a built-in function unless it is asked not to."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "heal.rego").write_text(
        'package heal\n\ndefault decision := {"decision": "allow", "reasons": []}\n\n'
        'decision := {"decision": "deny", "reasons": []} if to_number(input.environment) > 0\n'
    )
    supervisor = Supervisor()
    try:
        server = OpaServer(supervisor=supervisor, directory=tmp_path, policies=folder)
        server.start()
        async with policy_over(server, token=None) as policy:
            assert (await policy.decide(QUESTION)).kind is DecisionKind.DENY
    finally:
        supervisor.close()


async def test_a_server_without_the_policy_is_a_deny(tmp_path: Path) -> None:
    """It answers 200 and `{}`."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "other.rego").write_text("package other\n\nx := 1\n")
    supervisor = Supervisor()
    try:
        server = OpaServer(supervisor=supervisor, directory=tmp_path, policies=folder)
        server.start()
        async with policy_over(server, token=None) as policy:
            decision = await policy.decide(QUESTION)
    finally:
        supervisor.close()
    assert decision.kind is DecisionKind.DENY
    assert "no complete decision" in " ".join(decision.reasons)
