"""What a scenario becomes on a real control plane: manifests, times, and what is left out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from app.sandbox.objects import NODE_SELECTOR, PORT, PROBE, Template
from app.sandbox.scenarios.files import load_file
from testbed.kubeapi import PodTemplate
from testbed.scenarios.bench import MOST_SECONDS, SPEED, not_applicable
from testbed.scenarios.lens import Lens
from testbed.scenarios.manifests import pod_template, template_of
from testbed.scenarios.play import LEAD_SECONDS, StageClock, least_seconds, shortened
from tests.unit.heal_command import REPOSITORY, Heal

FOLDER = REPOSITORY / "bench" / "healing"
BEGAN = datetime(2026, 11, 30, 7, 0, 0, tzinfo=UTC)
START = datetime(2026, 2, 20, 17, 0, 0, tzinfo=UTC)
LENS = Lens(began=BEGAN, start=START, speed=10.0, past_seconds=10_800.0)


def read(value: object) -> object:
    return LENS.of(msgspec.json.decode(msgspec.json.encode(value)))


def test_times_of_the_api_server_are_read_on_the_faster_clock() -> None:
    """Three seconds there are thirty here; what was there before is hours old; annotations stay."""
    later = "2026-11-30T07:00:03Z"
    seen = read({"startedAt": later, "list": [later], "annotations": {"at": later}, "note": f"at {later}"})
    expected = (START + timedelta(seconds=30)).isoformat()
    assert seen == {
        "startedAt": expected,
        "list": [expected],
        "annotations": {"at": later},
        "note": f"at {later}",
    }
    before = LENS.moment(BEGAN - timedelta(seconds=5))
    assert before == START - timedelta(seconds=10_805)


def test_a_progress_deadline_is_read_as_the_scenario_says_it() -> None:
    """The API server keeps it in its own seconds."""
    assert read({"spec": {"progressDeadlineSeconds": 60}}) == {"spec": {"progressDeadlineSeconds": 600}}


def test_a_template_survives_the_way_to_the_api_server_and_back() -> None:
    """Whatever a scenario can set in a template is found again in the pods."""
    plain = Template(image="registry.example/shop:1.0.0", pod_fields=((PROBE, "/healthz"),))
    whole = replace(
        plain,
        env=(("A", "1"), ("B", "2")),
        config_maps=("shop-config",),
        memory_limit="64Mi",
        annotations=(("self-healing-devops-agent/irreversible", "true"),),
        pod_fields=((PORT, "9090"), (NODE_SELECTOR, "node-2"), (PROBE, "/wrong")),
    )
    nodes = {"node-2": "space-node-2"}
    for template in (plain, whole):
        sent = pod_template(template, nodes)
        there = msgspec.json.decode(msgspec.json.encode(_without_nulls(sent)), type=PodTemplate)
        back = template_of(there.spec, there.metadata.annotations, {"space-node-2": "node-2"})
        assert back == replace(template, pod_fields=tuple(sorted(template.pod_fields)))


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


async def test_what_takes_long_goes_on_after_the_set_up() -> None:
    """A container that fills its memory in hours does so hours after its start, and not in the set-up."""
    clock = StageClock(START - timedelta(hours=3))
    short, long = (asyncio.create_task(clock.sleep(seconds)) for seconds in (1.0, 3 * 3600 + 60.0))
    await short
    assert not long.done()
    clock.stand_at(START)
    clock.run(1_000_000.0)
    await long
    assert clock.now() >= START + timedelta(seconds=60)


def test_quiet_time_before_the_first_event_is_left_out_and_nothing_else() -> None:
    """The distance between events, and to the horizon, stays what it was."""
    for name in ("two-faults", "control-night", "traffic-surge"):
        variant = load_file(FOLDER / f"{name}.yaml", 1)[0]
        shorter = shortened(variant)
        cut = variant.scenario.horizon - shorter.scenario.horizon
        assert cut >= 0
        expected = [pytest.approx(one.at) for one in variant.events]
        assert [one.at + cut for one in shorter.events] == expected
        assert min((one.at for one in shorter.events), default=0.0) <= LEAD_SECONDS
        assert shorter.fault_at is None or shorter.fault_at >= 0


def test_what_takes_too_long_is_left_out_with_the_reason() -> None:
    """At twice the speed it takes half as long."""
    variant = load_file(FOLDER / "load-grows-slowly.yaml", 1)[0]
    slow = least_seconds(shortened(variant)) / (MOST_SECONDS + 1)
    assert not_applicable(variant, slow) is not None
    assert not_applicable(variant, 2 * slow) is None
    hidden = load_file(FOLDER / "memory-leak.yaml", 1)[0]
    assert not_applicable(hidden, SPEED) == "it takes 360 s, and at most 180 s are played"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("stateful-release-stuck", "only Deployments are played, and it has a StatefulSet"),
        ("control-daemon-config", "only Deployments are played, and it has a DaemonSet and a StatefulSet"),
        ("release-errors", None),
    ],
)
def test_other_kinds_than_deployments_are_left_out_with_the_reason(name: str, why: str | None) -> None:
    """They are played in the simulated world."""
    assert not_applicable(load_file(FOLDER / f"{name}.yaml", 1)[0], SPEED) == why


def test_the_cluster_writes_no_report_of_the_simulated_world(heal: Heal) -> None:
    """Harm and times are compared with a twin, which only the simulated world has."""
    absent = str(FOLDER / "absent.yaml")
    answer = heal("bench", "healing", absent, "--cluster", "--report", "report.html")
    assert answer.code == 2
    assert "leave out --cluster" in answer.err
