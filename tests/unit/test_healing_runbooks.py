"""In which runs of the healing benchmark an approved runbook leads to a right end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from app.agent.actions import ENABLED_BY_DEFAULT
from app.agent.models import ActionName
from app.benchmarks.healing_runbooks import runbook_exists
from app.sandbox.scenarios.document import ActSpec, EndSpec
from app.sandbox.scenarios.files import Variant, load_scenarios
from app.sandbox.scenarios.judge import Scored, judge, score
from tests.unit.scenes import CATALOGUE
from tests.unit.test_healing_judge import DONE, FAULT, HEALED, RECOVERED, TWIN, scenario

FOLDER = Path(__file__).parents[2] / "bench" / "healing"


def played(name: str, ends: Sequence[EndSpec] | None = None) -> Variant:
    """A shipped scenario, perhaps with other right ends."""
    [variant] = load_scenarios(FOLDER / f"{name}.yaml", 1)
    if ends is None:
        return variant
    return replace(variant, scenario=structs.replace(variant.scenario, right_ends=tuple(ends)))


def by(*names: ActionName, all_of: bool = False) -> EndSpec:
    return EndSpec(end="recovered", by=tuple(ActSpec(action=one) for one in names), all_of=all_of)


@pytest.mark.parametrize(
    ("name", "ends", "exists"),
    [
        ("release-errors", None, True),
        ("scaled-too-low", None, True),
        ("credentials-rotated", None, False),
        ("database-down", None, False),
        ("control-blip", None, False),
        ("release-errors", [by(ActionName.RESTART)], False),
        ("release-errors", [by(ActionName.RESTART), by(ActionName.ROLLBACK)], True),
        ("release-errors", [by(ActionName.RESTART, ActionName.ROLLBACK)], True),
        ("release-errors", [by(ActionName.RESTART, ActionName.ROLLBACK, all_of=True)], False),
        ("release-errors", [EndSpec(end="escalated", by=by(ActionName.ROLLBACK).by)], False),
    ],
)
def test_a_runbook_takes_the_action_of_a_right_end_for_the_cause_of_the_fault(
    name: str, ends: Sequence[EndSpec] | None, *, exists: bool
) -> None:
    """It follows from the file and the catalogue, whatever the agent does."""
    assert runbook_exists(played(name, ends), CATALOGUE, ENABLED_BY_DEFAULT) is exists


def test_an_action_that_is_off_leads_nowhere() -> None:
    """A scenario may enable one, and then it counts."""
    variant = played("release-errors")
    assert not runbook_exists(variant, CATALOGUE, ENABLED_BY_DEFAULT - {ActionName.ROLLBACK})


def test_the_time_with_a_runbook_leaves_out_the_other_runs_and_no_handover() -> None:
    """A run that was handed over although a runbook exists counts to the horizon."""
    ended = scenario(RECOVERED)
    healed = Scored(
        scenario="judged",
        variant=0,
        family="test",
        control=False,
        run=HEALED,
        judgement=judge(ended, FAULT, replace(HEALED, acts=DONE), TWIN),
        runbook=True,
    )
    handed_over = replace(healed, judgement=judge(ended, FAULT, TWIN, TWIN))
    without = replace(handed_over, runbook=False)
    found = score([healed, handed_over, without])
    assert healed.judgement.recover_seconds is not None
    assert handed_over.judgement.recover_seconds is not None
    assert found.with_runbook == 2
    mean = (healed.judgement.recover_seconds + handed_over.judgement.recover_seconds) / 2
    assert found.mttr_runbook_seconds == mean
    assert (score([without]).with_runbook, score([without]).mttr_runbook_seconds) == (0, None)
