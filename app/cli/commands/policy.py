"""`heal policy`: check and test a bundle of policies, and report which rule decided what.

Nothing here asks a running agent to do anything: a bundle that passes `check` is
taken over by an agent when it starts, or on SIGHUP.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from app.agent.evidence.format import counted, in_words
from app.agent.ids import JsonObject
from app.agent.models import ApprovalState, DecisionKind
from app.cli.commands.errors import CommandFailed
from app.cli.commands.output import printable
from app.config import Settings
from app.connectors.policy.bundle import read_bundle, shipped_policies
from app.connectors.policy.connect import connect_policy
from app.connectors.policy.embedded import EmbeddedPolicy
from app.connectors.policy.engine import EngineFault, check_folder
from app.connectors.policy.tests import Failure, run_tests
from app.errors import Invalid
from app.schemas import ActionView, ApprovalView, IncidentView
from app.wire.strict_json import decode


def policy_folder(settings: Settings) -> Path:
    """Where the policies of these settings are."""
    return settings.policy_dir or shipped_policies()


def check(folder: Path) -> str:
    """The contents of a valid folder; `CommandFailed` reports every mistake with file and line."""
    problems = check_folder(folder)
    if problems:
        raise CommandFailed("the policies cannot be used:\n  " + "\n  ".join(map(str, problems)))
    bundle = read_bundle(folder)
    tests = sum(module.is_test for module in bundle.modules)
    policies = counted(len(bundle.modules) - tests, "policy", "policies")
    return f"Valid: {policies} and {counted(tests, 'test file')} in {folder}."


def test(folder: Path) -> tuple[list[str], int]:
    """Run every `test_` rule: a line for each, and how many failed; raises `CommandFailed`."""
    check(folder)
    try:
        results = run_tests(read_bundle(folder))
    except EngineFault as fault:
        raise CommandFailed(f"the tests cannot be run: {fault}") from fault
    if not results:
        raise CommandFailed(f"no test in {folder}: tests are rules named test_..., in files *_test.rego")
    lines = [line for name, failure in results.items() for line in _outcome(name, failure)]
    failed = sum(failure is not None for failure in results.values())
    return [*lines, f"{len(results) - failed} passed, {failed} failed"], failed


def _outcome(name: str, failure: Failure | None) -> Iterator[str]:
    """One line for a pass; where and why for a failure."""
    if failure is None:
        yield f"ok    {name}"
        return
    yield f"FAIL  {name}: {failure.place}: {failure.statement}"
    if failure.expected is not None:
        yield f"      expected  {failure.expected}"
        yield f"      got       {failure.got}"


class Evaluation(BaseModel):
    """The decision of the policies on one input."""

    decision: DecisionKind
    reasons: list[str]
    rules: list[str]


async def evaluate(settings: Settings, folder: Path | None, document: Path) -> Evaluation:
    """The decision of a folder of policies, else of the engine of these settings, on an input.

    Raises `CommandFailed` for an input that is no JSON object.
    """
    content = _read(document)
    timeout = settings.policy_timeout_seconds
    engine = EmbeddedPolicy(folder, timeout_seconds=timeout) if folder else connect_policy(settings)
    try:
        answer = await engine.decide(content)
    finally:
        await engine.aclose()
    return Evaluation(decision=answer.kind, reasons=list(answer.reasons), rules=list(answer.rules))


def decided(found: Evaluation) -> Iterator[str]:
    """The decision in lines."""
    yield in_words(found.decision)
    for reason in found.reasons:
        yield f"    because  {printable(reason)}"
    if found.rules:
        yield f"    decided by  {', '.join(found.rules)}"


def _read(document: Path) -> JsonObject:
    try:
        raw = sys.stdin.buffer.read() if str(document) == "-" else document.read_bytes()
        content = decode(raw)
    except OSError as error:
        raise CommandFailed(f"{document}: {error.strerror}") from error
    except Invalid as error:
        raise CommandFailed(f"{document}: {error}") from error
    if not isinstance(content, dict):
        raise CommandFailed(f"{document}: the input of a policy is a JSON object")
    return content


def explain(incident: IncidentView) -> Iterator[str]:
    """Each decision on record, with its reasons and the rules that it rests on."""
    for action in incident.actions:
        yield from _decided(action)
    for approval in incident.approvals:
        if approval.state is ApprovalState.PENDING:
            yield from _asked(approval)
    if not incident.actions and not any(a.state is ApprovalState.PENDING for a in incident.approvals):
        yield f"Policy decided nothing in {incident.id} ({incident.state}): no action was proposed to it."


def _decided(action: ActionView) -> Iterator[str]:
    on = f" on {action.target.kind} {action.target.namespace}/{action.target.name}" if action.target else ""
    yield f"{in_words(action.name)}{on} ({action.risk} risk): {in_words(action.decision)}"
    for reason in action.reasons:
        yield f"    because  {reason}"
    yield f"    decided by  {', '.join(action.rules) or 'not on record (an older version decided)'}"


def _asked(approval: ApprovalView) -> Iterator[str]:
    yield f"{in_words(approval.action)}: needs approval, and {approval.id} awaits an answer"
    for reason in approval.reasons:
        yield f"    because  {reason}"
