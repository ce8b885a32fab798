"""A feature flag whose change is the cause has its previous value again, once; nothing else is touched."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from app.agent.evidence.cluster.flags import FlagPlace, changed_flags, flags_of, with_field
from app.agent.models import ActionName, IncidentState
from app.bootstrap import Adapters
from app.sandbox.objects import ConfigMap, Template
from tests.stories import ACTING, NAMESPACE, SERVICE, Story, messages, story
from tests.test_hands import DiesAfter
from tests.test_interruptions import Killed

ENABLED = frozenset({ActionName.DISABLE_FLAG, ActionName.RESTART, ActionName.ROLLBACK, ActionName.NOTIFY})
PLACE = FlagPlace(key="flags.json", name="FAIL_RATIO")


def flag(variant: str, state: str = "ENABLED", **more: object) -> dict[str, object]:
    return {
        "state": state,
        "variants": {"off": "0", "on": "0.9", "worse": "0.95"},
        "defaultVariant": variant,
        **more,
    }


def document(**flags: dict[str, object]) -> str:
    return json.dumps({"$schema": "https://flagd.dev/schema/v0/flags.json", "flags": flags}, indent=2) + "\n"


def data(**flags: dict[str, object]) -> dict[str, str]:
    return {"flags.json": document(**flags), "note": "left alone"}


def held(stage: Story) -> dict[str, str]:
    return stage.world.api.get(ConfigMap, NAMESPACE, "shop-flags").data


OTHER: dict[str, object] = {"state": "DISABLED", "variants": {"a": "1"}, "defaultVariant": "a"}


@pytest.mark.parametrize(
    ("dies_after", "before", "after", "ends"),
    [
        (None, {"FAIL_RATIO": flag("off")}, {"FAIL_RATIO": flag("on")}, flag("off")),
        (
            ActionName.DISABLE_FLAG,
            {"FAIL_RATIO": flag("on", "DISABLED")},
            {"FAIL_RATIO": flag("on")},
            flag("on", "DISABLED"),
        ),
        (None, {}, {"FAIL_RATIO": flag("on")}, flag("on", "DISABLED")),
    ],
)
async def test_the_flag_that_changed_is_set_back(
    tmp_path: Path,
    dies_after: ActionName | None,
    before: dict[str, dict[str, object]],
    after: dict[str, dict[str, object]],
    ends: dict[str, object],
) -> None:
    """The variant, the state, or a new flag disabled; after a crash it is found executed, not repeated."""
    writers: list[DiesAfter] = []

    def connected(world: Adapters) -> Adapters:
        assert world.writer is not None
        writers.append(DiesAfter(world.writer, dies_after if not writers else None))
        return replace(world, writer=writers[0])

    async with story(tmp_path, connected=connected, **ACTING, enabled_actions=ENABLED) as stage:
        stage.world.put_config_map(NAMESPACE, "shop-flags", data(OTHER=OTHER, **before))
        stage.deploy(template=Template(image="shop:1", config_maps=("shop-flags",)))
        await stage.live(180)
        stage.world.put_config_map(NAMESPACE, "shop-flags", data(OTHER=OTHER, **after))
        if dies_after is not None:
            with pytest.raises(Killed):
                await stage.live_until_ended()
            await stage.restart(enabled_actions=ENABLED)
        record = await stage.live_until_ended()
        told = messages(record.timeline)
        assert record.incident.state is IncidentState.RECOVERED, (told, record.incident.plan)
        assert [i.action.name for i in record.intents] == [ActionName.DISABLE_FLAG]
        assert held(stage) == data(OTHER=OTHER, FAIL_RATIO=ends)
        assert writers[0].effects == [record.intents[0].id]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (data(OTHER=OTHER, FAIL_RATIO=flag("on"), NEW=OTHER), "changed: FAIL_RATIO, NEW"),
        ({**data(OTHER=OTHER, FAIL_RATIO=flag("on")), "note": "changed"}, "not only feature flags changed"),
    ],
)
async def test_more_than_one_flag_is_left_to_a_person(
    tmp_path: Path, after: dict[str, str], said: str
) -> None:
    """Which of several changes is the cause is not known: the agent sets none of them."""
    async with story(tmp_path, **ACTING, enabled_actions=ENABLED) as stage:
        stage.world.put_config_map(NAMESPACE, "shop-flags", data(OTHER=OTHER, FAIL_RATIO=flag("off")))
        stage.deploy(template=Template(image="shop:1", config_maps=("shop-flags",)))
        await stage.live(180)
        stage.world.put_config_map(NAMESPACE, "shop-flags", after)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert held(stage) == after
        plan = record.incident.plan
        assert plan is not None
        assert said in " ".join(one.reason for one in plan.rejected)


async def test_a_flag_that_did_not_help_is_put_back(tmp_path: Path) -> None:
    """The undo restores the whole content, as it was formatted; the service stays the person's."""
    async with story(tmp_path, **ACTING, enabled_actions=ENABLED) as stage:
        stage.world.put_config_map(NAMESPACE, "shop-flags", data(FAIL_RATIO=flag("on", "DISABLED")))
        stage.deploy(template=Template(image="shop:1", config_maps=("shop-flags",)))
        await stage.live(180)
        changed = data(FAIL_RATIO=flag("on"))
        stage.world.put_config_map(NAMESPACE, "shop-flags", changed)
        await stage.live_until(lambda record: bool(record.intents))
        stage.world.set_env(NAMESPACE, SERVICE, {"FAIL_RATIO": "0.9"})  # it fails for another reason too
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)
        assert held(stage) == changed


PLAIN = '{"state": "ENABLED", "variants": {}}'


def test_only_whole_documents_hold_flags() -> None:
    """What is not understood whole is not changed: another format, a name twice, a flag without a state."""
    good = document(FAIL_RATIO=flag("off"))
    assert flags_of({"flags.json": good}) == {PLACE: flag("off")}
    for bad in (
        "flags: {}",
        "{",
        '{"flags": {}}',
        '{"flags": {"a": 1}}',
        '{"flags": {"a": {"state": "ON"}}}',
        f'{{"flags": {{"{"a" * 300}": {PLAIN}}}}}',
        f'{{"flags": {{"a\\u001b[2J": {PLAIN}}}}}',
        f'{{"flags": {{"a": {PLAIN}}}, "x": 1e999}}',
        f'{{"flags": {{"a": {PLAIN}}}, "x": NaN}}',
        f'{{"flags": {{"a": {PLAIN}}}, "x": "\\ud800"}}',
        f'{{"flags": {{"a": {PLAIN}}}, "x": 0.12345678901234567890123}}',
        f'{{"flags": {{"a": {PLAIN}}}, "x": 1e-99999999999999999999}}',
        '{"flags": {"a": {"state": "ENABLED", "variants": {}, "defaultVariant": "x\\ny"}}}',
    ):
        assert flags_of({"flags.json": bad}) == {}, bad
    twice = '{"flags": {"a": {"state": "ENABLED", "state": "DISABLED", "variants": {}}}}'
    assert flags_of({"flags.json": twice}) == {}
    assert with_field(twice, "a", "state", "DISABLED") is None
    set_to = with_field(good, "FAIL_RATIO", "defaultVariant", "on")
    assert set_to == document(FAIL_RATIO=flag("on"))
    assert with_field('{"flags":{"a":{"state":"ENABLED","variants":{}}}}', "b", "state", "DISABLED") is None
    assert changed_flags({"a": "1"}, {"a": "2"}) is None
