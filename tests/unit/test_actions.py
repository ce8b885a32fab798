"""Every action is complete: each part in its file, a patch for what it changes, an entry in both schemas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.agent.actions import ACTIONS, ENABLED_BY_DEFAULT, ActionSpec, Resolved, StateChange
from app.agent.actions.spec import CONFIG_MAP
from app.agent.guardrails.blast_radius import pods_taken
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.target_token import (
    ABORTED,
    CORDONED_BY,
    DATA,
    MAXIMUM,
    PAUSED,
    READY,
    REPEATED_AS,
    REPLICAS,
    SILENCED,
    STEP,
    TEMPLATE,
    TERMINATING,
    UNSCHEDULABLE,
)
from app.agent.guardrails.workload_kinds import DEPLOYMENT, IN_MONITORING, ROLLOUT
from app.agent.models import Action, ActionName
from app.agent.workload import ObjectRef
from app.config import Settings
from app.connectors.kubernetes.patches import PATCHES
from app.sandbox.operations import ON_WORKLOAD
from scripts.schemas import POLICY_INPUT, RUNBOOK, written
from tests.contract.custom_resources import ROLLOUT_STATUS
from tests.contract.hands_suite import ARRANGED
from tests.unit.scenes import LIMITS, NEW, OLD, evidence, pods, pulling, released

FOLDER = Path(__file__).parents[2] / "app" / "agent" / "actions"
ON_CLUSTER = [name for name, spec in ACTIONS.items() if spec.kinds]
ALL = list(ACTIONS.values())
BAD = evidence(workload=released((*pulling(NEW), *pods(OLD))))
"""A release whose image does not exist, beside the old pods."""


def test_every_file_with_a_spec_is_registered_under_its_name() -> None:
    """`ActionName` registers the file of that name; a file that it does not name would never be used."""
    files = {path.stem for path in FOLDER.glob("*.py") if "SPEC = ActionSpec(" in path.read_text()}
    assert files == {str(name) for name in ActionName}
    assert {name: spec.name for name, spec in ACTIONS.items()} == {name: name for name in ActionName}


def test_every_action_on_the_cluster_has_one_kubernetes_patch_for_each_kind_of_object() -> None:
    """An action without kinds changes no cluster, and states so by an empty set."""
    assert {name: frozenset(patch.changes) for name, patch in PATCHES.items()} == {
        name: kinds for name in ON_CLUSTER if (kinds := ACTIONS[name].kinds - IN_MONITORING)
    }


def test_every_action_on_a_deployment_works_in_the_simulated_cluster() -> None:
    """A demo or a test must not meet an action that only a real cluster knows."""
    assert set(ON_WORKLOAD) == {name for name in ON_CLUSTER if DEPLOYMENT in ACTIONS[name].kinds}


def test_every_action_stands_in_the_cluster_contract() -> None:
    """Rehearsed without a write, forbidden without its verb, recognised after a crash, undone."""
    elsewhere = {ActionName.RESTORE, *(name for name in ON_CLUSTER if ACTIONS[name].kinds <= IN_MONITORING)}
    assert {*ARRANGED, *ROLLOUT_STATUS} == {*ON_CLUSTER} - elsewhere
    assert {name for name in ON_CLUSTER if ROLLOUT in ACTIONS[name].kinds} - {ActionName.RESTORE} == {
        *ROLLOUT_STATUS
    }


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_an_action_names_what_it_changes(spec: ActionSpec) -> None:
    """Parts of a token that exist; none only for an undo and where no object is changed."""
    workloads, others = (
        {TEMPLATE, PAUSED, REPLICAS},
        {
            UNSCHEDULABLE,
            CORDONED_BY,
            MAXIMUM,
            READY,
            TERMINATING,
            ABORTED,
            STEP,
            DATA,
            REPEATED_AS,
            SILENCED,
        },
    )
    assert set(spec.changes) <= (workloads if DEPLOYMENT in spec.kinds else others | {PAUSED})
    undo = spec.name is ActionName.RESTORE
    assert bool(spec.changes) is (bool(spec.kinds) and not undo)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_an_action_has_an_undo_or_a_sentence_why_not(spec: ActionSpec) -> None:
    """Only an undo, and an action on no object, need neither."""
    needs_neither = not spec.kinds or spec.name is ActionName.RESTORE
    assert needs_neither or (spec.undo is None) is (spec.no_undo_note is not None)
    for sentence in filter(None, (spec.undo_note, spec.no_undo_note)):
        assert "Deployment prod/shop" in sentence.format(name=spec.name, target="Deployment prod/shop")


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_an_action_that_rolls_out_takes_pods_away(spec: ActionSpec) -> None:
    """A new template replaces every pod; the number at once is that of the strategy."""
    target = ObjectRef(kind=DEPLOYMENT, namespace="prod", name="shop")
    action = Action(
        name=spec.name, risk=spec.risk, target=target, parameters={}, expected_effect="", undo=None
    )
    taken = pods_taken(action, Disruption(replicas=4, missing_at_once=2))
    goes_on = {ActionName.RESUME, ActionName.RETRY_ROLLOUT, ActionName.PROMOTE_ROLLOUT}
    assert taken == (2 if TEMPLATE in spec.changes or spec.name in goes_on else 0)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_a_resolved_action_is_on_a_kind_that_it_declares(spec: ActionSpec) -> None:
    """What a plan can contain has a patch, and says from which state to which."""
    for seen in (evidence(), BAD, evidence(workload=released(paused=True))):
        for parameters in ({}, {"to": "previous_healthy"}, {"by": 1}, {"minutes": 30}):
            found = spec.resolve(parameters, seen, LIMITS)
            if isinstance(found, Resolved):
                assert isinstance(found.change, StateChange)
                assert spec.kinds == frozenset() if found.target is None else found.target.kind in spec.kinds


def test_the_default_of_the_setting_is_what_the_actions_say() -> None:
    """An undo is never enabled as an action of its own."""
    assert Settings(_env_file=None).enabled_actions == ENABLED_BY_DEFAULT
    assert {name for name, spec in ACTIONS.items() if spec.in_runbooks} >= ENABLED_BY_DEFAULT


def test_only_configuration_is_changed_in_a_config_map() -> None:
    """The right to patch ConfigMaps is needed for it alone."""
    assert {n for n in ON_CLUSTER if CONFIG_MAP in ACTIONS[n].kinds} == {
        ActionName.REVERT_CONFIG,
        ActionName.DISABLE_FLAG,
        ActionName.RESTORE,
    }


@pytest.mark.parametrize("file", [RUNBOOK, POLICY_INPUT], ids=lambda file: file.name)
def test_a_published_schema_names_the_actions_and_causes_of_the_code(file: Path) -> None:
    """Editors and policy authors read the files."""
    assert file.read_text(encoding="utf-8") == written(file), "run: python -m scripts.schemas"


def test_the_schema_of_the_policy_input_lists_every_action() -> None:
    """Four fields hold the name of an action."""
    text = json.dumps(json.loads(POLICY_INPUT.read_text(encoding="utf-8")))
    assert text.count(json.dumps([str(name) for name in ActionName])) == 4
