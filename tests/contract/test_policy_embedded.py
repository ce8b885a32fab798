"""The embedded policy engine gives the right answer in every case; real OPA is beside it in another tier."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.agent.models import DecisionKind
from app.agent.ports.policy import PolicyEngine
from app.connectors.policy.bundle import read_bundle, shipped_policies
from app.connectors.policy.embedded import EmbeddedPolicy
from app.connectors.policy.tests import run_tests
from tests.contract.policy_cases import Case, cases, mutated, write_bundle


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[PolicyEngine]:
    policy = EmbeddedPolicy(folder, timeout_seconds=30)
    try:
        yield policy
    finally:
        await policy.aclose()


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
async def test_every_case_is_decided_as_it_should(case: Case, tmp_path: Path) -> None:
    """The decision and the rules it rests on."""
    async with embedded(write_bundle(tmp_path / "policies", case)) as policy:
        answer = await policy.decide(case.document)
    assert answer.kind is case.decision
    assert answer.reasons
    if case.rules is not None:
        assert answer.rules == case.rules


def test_there_are_cases_of_every_answer() -> None:
    """At least sixty, without duplicates."""
    all_cases = cases()
    assert len({case.name for case in all_cases}) == len(all_cases) >= 60
    assert {case.decision for case in all_cases} == set(DecisionKind)


def test_the_policy_s_own_tests_pass() -> None:
    """Those that stand beside it, in Rego."""
    results = run_tests(read_bundle(shipped_policies()))
    assert len(results) >= 24
    assert [name for name, failure in results.items() if failure is not None] == []


async def test_whatever_it_is_asked_it_answers() -> None:
    """A mutated document leads to a decision with a reason, never to an exception."""
    async with embedded(shipped_policies()) as policy:
        answers = [await policy.decide(document) for document in mutated(300)]
    assert all(answer.reasons for answer in answers)
    assert {answer.kind for answer in answers} >= {DecisionKind.ALLOW, DecisionKind.DENY}
