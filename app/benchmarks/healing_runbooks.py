"""Which runs of the healing benchmark an approved runbook could end. Pure.

It depends only on the scenario and the catalogue, not on the agent: a right end names an action that heals,
and a runbook has that action for a cause that a fault of the run has at that service.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.agent.models import ActionName, Cause
from app.agent.runbooks import Catalogue
from app.benchmarks.healing_causes import right_causes
from app.sandbox.scenarios.document import ActSpec, EndSpec
from app.sandbox.scenarios.files import Variant


def runbook_exists(variant: Variant, catalogue: Catalogue, enabled: Iterable[ActionName]) -> bool:
    """Whether a runbook leads to one of the right ends; `enabled`: the actions that are allowed there."""
    allowed = frozenset(enabled)
    return any(
        _leads_to(end, variant, catalogue, allowed)
        for end in variant.scenario.right_ends
        if end.end == "recovered"
    )


def _leads_to(end: EndSpec, variant: Variant, catalogue: Catalogue, allowed: frozenset[ActionName]) -> bool:
    found = [_taken(one, variant, catalogue) for one in end.by if one.action in allowed]
    return len(found) == len(end.by) and all(found) if end.all_of else any(found)


def _taken(act: ActSpec, variant: Variant, catalogue: Catalogue) -> bool:
    """Whether a runbook takes this action for a cause at its service; without one, at any service."""
    services = [one.name for one in variant.scenario.topology.services]
    causes: set[Cause] = set()
    for service in services if act.service is None else [act.service]:
        causes |= right_causes(variant, service)
    return any(
        not causes.isdisjoint(runbook.causes) and any(step.action is act.action for step in runbook.steps)
        for runbook in catalogue.runbooks
    )
