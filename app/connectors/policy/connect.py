"""Constructs the policy engine that the settings name, and checks it for `heal doctor`."""

from __future__ import annotations

from collections.abc import AsyncIterator

from app.agent.models import DecisionKind
from app.config import Settings
from app.connectors.findings import DoctorRun, Finding, fail, ok
from app.connectors.peer_breaker import PeerBreaker
from app.connectors.policy.answers import FAULT
from app.connectors.policy.embedded import EmbeddedPolicy
from app.connectors.policy.opa import OpaPolicy
from app.errors import ConfigurationError


def connect_policy(settings: Settings) -> OpaPolicy | EmbeddedPolicy:
    """The server that OPA_URL names, else the engine in this process.

    Raises `ConfigurationError`, naming file and line, for policies that cannot be used.
    """
    return OpaPolicy.from_settings(settings) if settings.opa_url else EmbeddedPolicy.from_settings(settings)


def policy_peer(engine: OpaPolicy | EmbeddedPolicy) -> PeerBreaker | None:
    """The circuit breaker of a policy server; None for the engine in this process."""
    return engine.breaker if isinstance(engine, OpaPolicy) else None


async def check(run: DoctorRun) -> AsyncIterator[Finding]:
    """Whether the policy engine decides: it must deny an empty document."""
    settings = run.settings
    where = "OPA_URL" if settings.opa_url else "POLICY_DIR"
    try:
        engine = connect_policy(settings)
    except ConfigurationError as error:
        yield fail("policy", str(error), f"correct {where}; `heal policy check` lists every error")
        return
    try:
        answer = await engine.decide({})
    finally:
        await engine.aclose()
    if answer.rules == FAULT:
        yield fail("policy", f"every action is denied: {'; '.join(answer.reasons)}", f"correct {where}")
    elif answer.kind is not DecisionKind.DENY:
        yield fail(
            "policy",
            f"the decision on an empty document is {answer.kind}",
            "deny unknown input in the policy",
        )
    else:
        decides = "the server of OPA_URL" if settings.opa_url else "the embedded engine"
        yield ok("policy", f"{decides} decides")
