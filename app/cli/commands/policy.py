"""`heal policy`: check and test a bundle of policies, and report which rule decided what.

Nothing here asks a running agent to do anything: a bundle that passes `check` is
taken over by an agent when it starts, or on SIGHUP.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from app.agent.evidence.format import counted, in_words
from app.agent.models import ApprovalState
from app.cli.commands.errors import CommandFailed
from app.config import Settings
from app.connectors.policy.bundle import read_bundle, shipped_policies
from app.connectors.policy.engine import EngineFault, check_folder
from app.connectors.policy.tests import Failure, run_tests
from app.schemas import ActionView, ApprovalView, IncidentView


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
