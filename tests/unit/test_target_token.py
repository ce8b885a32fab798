"""Which changes of an object matter to an action, and which to its undo."""

from __future__ import annotations

from typing import Any

import pytest

from app.agent.actions.target_parts import as_left, moved_parts, restored_parts, same_ground
from app.agent.guardrails.target_token import workload_token
from app.agent.ids import JsonScalar
from app.agent.models import Action, ActionName, Risk
from app.agent.workload import ObjectRef

DEPLOYMENT = ObjectRef(kind="Deployment", namespace="prod", name="shop")
CONFIG_MAP = ObjectRef(kind="ConfigMap", namespace="prod", name="shop-config")


def token(uid: str = "u", **changes: Any) -> str:
    parts: dict[str, Any] = {
        "generation": 7,
        "template": "t1",
        "paused": False,
        "replicas": 4,
        "rest": "r1",
        **changes,
    }
    return workload_token(uid, **parts)


def action(name: ActionName, target: ObjectRef = DEPLOYMENT, **parameters: JsonScalar) -> Action:
    return Action(
        name=name, risk=Risk.LOW, target=target, parameters=parameters, expected_effect="", undo=None
    )


ROLLBACK, SCALE, PAUSE = (action(n) for n in (ActionName.ROLLBACK, ActionName.SCALE, ActionName.PAUSE))


@pytest.mark.parametrize(
    ("act", "changed", "ground", "left"),
    [
        (ROLLBACK, {"replicas": 9}, True, True),
        (ROLLBACK, {"template": "t2"}, False, False),
        (ROLLBACK, {"paused": True}, False, False),
        (ROLLBACK, {"rest": "r2"}, False, True),
        (SCALE, {"replicas": 9}, False, False),
        (SCALE, {"template": "t2"}, False, True),
        (PAUSE, {"replicas": 9}, True, True),
        (PAUSE, {"template": "t2"}, False, False),
    ],
)
def test_a_part_matters_to_those_actions_that_rest_on_it(
    act: Action, changed: dict[str, Any], ground: bool, left: bool
) -> None:
    """Replicas are an autoscaler's: they neither void a decision on a template nor forbid its undo."""
    after = token(generation=8, **changed)
    assert same_ground(act, token(), after) is ground
    assert as_left(act, token(), after) is left
    assert (moved_parts(act, token(), after) == ()) is left


def test_another_object_of_the_name_is_never_the_same() -> None:
    """The uid is part of every token."""
    for act in (ROLLBACK, SCALE, PAUSE):
        assert not same_ground(act, token(), token(uid="v"))
        assert not as_left(act, token(), token(uid="v"))


@pytest.mark.parametrize("act", [ROLLBACK, SCALE, PAUSE], ids=lambda act: act.name)
def test_a_token_of_an_older_version_matches_its_generation_alone(act: Action) -> None:
    """It does not say which part moved: no manager changed anything, or nothing is written."""
    for compare in (same_ground, as_left):
        assert compare(act, "u/7", token())
        assert compare(act, token(), "u/7")
        assert not compare(act, "u/7", token(generation=8))
        assert not compare(act, "u/6", token())
        assert not compare(act, "v/7", token())
    assert moved_parts(act, "u/7", token(generation=8)) != ("replicas", "template", "paused", "rest")


def test_what_is_not_known_matches_nothing() -> None:
    """An intent without an applied state is not undone; two unknown states of no object are alike."""
    assert not as_left(ROLLBACK, None, token())
    assert not same_ground(ROLLBACK, None, token())
    assert same_ground(ROLLBACK, None, None)


def test_a_config_map_is_its_data() -> None:
    """One digest, compared whole."""
    revert = action(ActionName.REVERT_CONFIG, CONFIG_MAP)
    for compare in (same_ground, as_left, restored_parts):
        assert compare(revert, "c/abc", "c/abc")
        assert not compare(revert, "c/abc", "c/abd")


def test_an_undo_is_compared_in_what_it_puts_back() -> None:
    """The template is back although an autoscaler and a strategy moved on."""
    after = token(generation=9, replicas=9, rest="r2")
    assert restored_parts(ROLLBACK, token(), after)
    assert not restored_parts(SCALE, token(), after)
    undo = action(ActionName.RESTORE, undoes="rollback")
    assert same_ground(undo, token(), token(replicas=9))
    assert not same_ground(action(ActionName.RESTORE), token(), token(replicas=9))
