"""The embedded policy engine beside a real Open Policy Agent: the same answer, and never a looser one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.agent.models import DecisionKind
from app.agent.ports.policy import PolicyAnswer
from app.connectors.policy.bundle import shipped_policies
from app.connectors.policy.embedded import EmbeddedPolicy
from app.connectors.policy.opa import OpaPolicy
from testbed.opa import OpaServer, run_opa_tests
from testbed.supervisor import Supervisor
from tests.contract.policy_cases import Case, cases, mutated, write_bundle

pytestmark = pytest.mark.real

MUTATIONS = 5_000
STRICTNESS = (DecisionKind.ALLOW, DecisionKind.NEEDS_APPROVAL, DecisionKind.DENY)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpaServer]:
    """One OPA with the shipped policies."""
    supervisor = Supervisor()
    try:
        one = OpaServer(
            supervisor=supervisor, directory=tmp_path_factory.mktemp("opa"), policies=shipped_policies()
        )
        one.start()
        yield one
    finally:
        supervisor.close()


@pytest.fixture
async def opa(server: OpaServer) -> AsyncIterator[OpaPolicy]:
    policy = OpaPolicy(server.url, timeout_seconds=30)
    yield policy
    await policy.aclose()


@pytest.fixture
def prepared(server: OpaServer, case: Case) -> Iterator[None]:
    """The server with the configuration and the module of a case, and then without them."""
    server.put_data("heal_config", case.config or {"environments": {}, "windows": []})
    if case.module is not None:
        server.put_policy("own", case.module)
    yield
    if case.module is not None:
        server.delete_policy("own")
    server.put_data("heal_config", {"environments": {}, "windows": []})


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
@pytest.mark.usefixtures("prepared")
async def test_both_engines_give_the_same_answer(case: Case, opa: OpaPolicy, tmp_path: Path) -> None:
    """Decision, reasons and rules; where one fails, both deny."""
    embedded = EmbeddedPolicy(write_bundle(tmp_path / "policies", case), timeout_seconds=30)
    try:
        ours, theirs = await embedded.decide(case.document), await opa.decide(case.document)
    finally:
        await embedded.aclose()
    assert ours.kind is theirs.kind is case.decision
    assert ours.rules == theirs.rules
    if ours.rules != ("engine fault",):
        assert ours.reasons == theirs.reasons


async def test_the_embedded_engine_never_allows_what_opa_denies(opa: OpaPolicy) -> None:
    """Over thousands of mutated documents; where they differ, the embedded one is stricter."""
    embedded = EmbeddedPolicy(shipped_policies(), timeout_seconds=30)
    looser, kinds, differences = [], set(), 0
    try:
        for document in mutated(MUTATIONS):
            ours, theirs = await embedded.decide(document), await opa.decide(document)
            kinds.add((ours.kind, theirs.kind))
            differences += ours.kind is not theirs.kind
            if _strictness(ours) < _strictness(theirs):
                looser.append((document, ours, theirs))
    finally:
        await embedded.aclose()
    assert looser == []
    assert {(kind, kind) for kind in (DecisionKind.ALLOW, DecisionKind.DENY)} <= kinds
    assert differences <= MUTATIONS // 100, f"{differences} of {MUTATIONS} differ"


def test_opa_agrees_that_the_policy_s_own_tests_pass() -> None:
    """`opa test` on the folder that is shipped."""
    assert "PASS: " in run_opa_tests(shipped_policies())


def _strictness(answer: PolicyAnswer) -> int:
    return STRICTNESS.index(answer.kind)
