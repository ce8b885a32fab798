"""Scenario files: what is wrong with one is said with file and line, and its variants follow from data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator

from app.errors import ConfigurationError
from app.sandbox.scenarios.document import Event, ReleaseEvent
from app.sandbox.scenarios.files import load_file, load_scenarios, schema_text
from tests.unit.heal_command import Heal

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "bench" / "healing"
SCHEMA = ROOT / "app" / "sandbox" / "scenarios" / "scenario.schema.json"

VALID = """\
schema: 1
id: bad-release
title: A release fails
family: bad-release
topology:
  services:
    - {name: shop, load: 60, calls: [{to: ledger}]}
    - {name: ledger, replicas: $replicas}
timeline:
  - {at: 120, do: release, role: decoy, service: shop, version: 1.0.1, variants: [1]}
  - {at: $fault_at, do: release, service: ledger, version: 1.1.0, behaviour: {errors: 0.5}}
right_ends:
  - {end: recovered, by: [{action: rollback, service: ledger}]}
forbidden:
  - {action: restart, service: ledger}
vary:
  replicas: [3, 4]
  fault_at: {least: 200, most: 300}
variants: 4
"""


def written(folder: Path, text: str, name: str = "one.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_variants_differ_in_the_values_of_the_file(tmp_path: Path) -> None:
    """Values are taken in turn, ranges drawn by the seed, and decoys happen in some variants only."""
    variants = load_file(written(tmp_path, VALID))
    assert [v.name for v in variants] == [f"bad-release/{n}" for n in range(4)]
    assert [v.scenario.topology.services[1].replicas for v in variants] == [3, 4, 3, 4]
    assert [len(v.events) for v in variants] == [1, 2, 1, 1]
    begun = [v.fault_at for v in variants]
    assert len(set(begun)) == 4
    assert all(at is not None and 200 <= at <= 300 for at in begun)
    assert begun == [v.fault_at for v in load_file(tmp_path / "one.yaml")]


SING = "one.yaml:10:19: timeline[0].do: invalid"
REBOOT = "one.yaml:15:14: forbidden[0].action: invalid"
MANY = "topology.services[1].replicas: expected `int`, got `str` (variant 1)"
WRONG = [
    ("an unknown field", "load: 60", "lode: 60", "one.yaml:7:20: topology.services[0].lode: unknown field"),
    ("a missing field", "family: bad-release\n", "", "missing required field `family`"),
    ("a wrong type", "errors: 0.5", "errors: half", "one.yaml:11:87: timeline[1].behaviour.errors: expected"),
    ("out of range", "errors: 0.5", "errors: 1.5", "one.yaml:11:87:"),
    ("an unknown event", "at: 120, do: release", "at: 120, do: sing", SING),
    ("an unknown action", "action: restart", "action: reboot", REBOOT),
    ("an unknown end", "end: recovered", "end: fine", "right_ends[0].end: invalid"),
    ("a name not varied", "$fault_at", "$when", "one.yaml:11:10: timeline[1].at: $when is not defined"),
    ("an unknown callee", "to: ledger", "to: ledgre", "there is no service or external 'ledgre'"),
    (
        "an unknown service",
        "service: shop, v",
        "service: shpo, v",
        "timeline[0].service: there is no service",
    ),
    ("a trap that is right", "action: restart", "action: rollback", "is also part of a right end"),
    ("too late", "at: 120", "at: 9000", "it is not before the horizon"),
    ("no fault", "at: $fault_at", "role: decoy, at: $fault_at", "no event has the role fault"),
    ("a broken variant", "[3, 4]", "[3, many]", MANY),
    ("no YAML", "topology:\n", "topology: [\n", "no valid YAML"),
    ("an ordinal", "name: ledger,", "name: ledger, kind: DaemonSet, partition: 1,", "only a StatefulSet has"),
    ("by hand", "name: ledger,", "name: ledger, on_delete: true,", "a Deployment has no update strategy"),
    ("nodes", "name: ledger,", "name: ledger, on_nodes: [node-1],", "only a DaemonSet has nodes"),
    (
        "no node",
        "name: ledger,",
        "name: ledger, kind: DaemonSet, on_nodes: [node-9],",
        "topology.services[1].on_nodes[0]: there is no node 'node-9'",
    ),
    (
        "scaled nodes",
        "name: ledger,",
        "name: ledger, kind: DaemonSet, autoscaler: {least: 1, most: 3},",
        "a DaemonSet has no replicas to scale",
    ),
    ("twice", "schema: 1\n", "schema: 1\nschema: 1\n", "one.yaml:2:1: the key 'schema' stands here twice"),
    ("another schema", "schema: 1", "schema: 2", "one.yaml:1:9: schema: invalid"),
]


@pytest.mark.parametrize(("old", "new", "said"), [case[1:] for case in WRONG], ids=[c[0] for c in WRONG])
def test_a_malformed_scenario_is_an_error_with_file_and_line(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    """The message leads to the line to correct."""
    assert old in VALID
    file = written(tmp_path, VALID.replace(old, new, 1))
    with pytest.raises(ConfigurationError) as raised:
        load_file(file)
    assert str(raised.value).startswith(f"{file}:")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "event", "said"),
    [
        ("DaemonSet", "do: scale, service: ledger, replicas: 2", "runs one pod on each of its nodes"),
        ("DaemonSet", "do: place_on, service: ledger, node: node-1", "runs one pod on each of its nodes"),
        ("StatefulSet", "do: pause, service: ledger", "the rollout of a StatefulSet cannot be paused"),
    ],
)
def test_an_event_that_does_not_happen_to_a_kind_is_an_error(
    tmp_path: Path, kind: str, event: str, said: str
) -> None:
    """The same event is valid for a Deployment."""
    text = VALID.replace("timeline:\n", f"timeline:\n  - {{at: 90, {event}}}\n")
    assert load_file(written(tmp_path, text))
    file = written(tmp_path, text.replace("name: ledger,", f"name: ledger, kind: {kind},"))
    with pytest.raises(ConfigurationError, match=said):
        load_file(file)


def test_a_control_has_no_fault(tmp_path: Path) -> None:
    """A control in which something is wrong would count a right action as wrong."""
    file = written(tmp_path, VALID.replace("title:", "control: true\ntitle:"))
    with pytest.raises(ConfigurationError, match="a control has no fault"):
        load_file(file)


def test_two_files_cannot_share_an_id(tmp_path: Path) -> None:
    """Results are reported by it."""
    written(tmp_path, VALID)
    written(tmp_path, VALID, "two.yaml")
    with pytest.raises(ConfigurationError, match=r"two\.yaml:2:5: id: 'bad-release' is taken by"):
        load_scenarios(tmp_path)


def test_the_command_exits_with_2_for_a_malformed_file(heal: Heal, tmp_path: Path) -> None:
    """Nothing is played, and the message names file and line."""
    file = written(tmp_path, VALID.replace("load: 60", "lode: 60"))
    answer = heal("bench", "healing", str(file))
    assert answer.code == 2
    assert "one.yaml:7:20" in answer.text


def test_the_command_exits_with_2_for_a_folder_without_scenarios(heal: Heal, tmp_path: Path) -> None:
    """A mistyped folder is no success."""
    empty = tmp_path / "empty"
    empty.mkdir()
    answer = heal("bench", "healing", str(empty))
    assert answer.code == 2
    assert "no scenario" in answer.text


def test_every_shipped_scenario_is_valid_in_every_variant() -> None:
    """Ten variants each, a quarter of all for controls."""
    variants = load_scenarios(SHIPPED)
    names = {v.scenario.id: v.scenario for v in variants}
    assert len(variants) == 10 * len(names)
    assert sum(s.control for s in names.values()) * 4 >= len(names)
    for variant in variants:
        assert variant.file.stem == variant.scenario.id


def test_variants_of_a_shipped_scenario_differ_in_more_than_their_seed() -> None:
    """A variant that plays the same as another measures nothing."""
    found: dict[str, set[str]] = {}
    for variant in load_scenarios(SHIPPED):
        played = repr((variant.scenario.topology, variant.events))
        found.setdefault(variant.scenario.id, set()).add(played)
    assert {name: len(seen) for name, seen in found.items() if len(seen) < 10} == {}


def test_the_shipped_schema_is_generated_from_the_types() -> None:
    """`python -m scripts.schemas` writes it."""
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()


def test_the_schema_accepts_what_the_types_accept(tmp_path: Path) -> None:
    """Editors check the same things, `$name` included."""
    validator = Draft202012Validator(json.loads(schema_text()))
    for file in sorted(SHIPPED.glob("*.yaml"))[::9]:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert [e.message for e in validator.iter_errors(content)] == [], file
    broken = yaml.safe_load(VALID.replace("load: 60", "lode: 60"))
    assert list(validator.iter_errors(broken)) != []


def test_an_event_keeps_its_type(tmp_path: Path) -> None:
    """The word after `do` decides which fields an event has."""
    event = load_file(written(tmp_path, VALID))[0].events[0]
    assert isinstance(event, ReleaseEvent)
    assert event.behaviour.errors == 0.5


PAGE = (ROOT / "docs" / "bench-healing.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_is_a_valid_scenario(tmp_path: Path) -> None:
    """What people copy works."""
    _, _, rest = PAGE.partition("<!-- scenario -->\n```yaml\n")
    example = rest.partition("```")[0]
    assert len(load_file(written(tmp_path, example))) == 10


def test_the_page_shows_every_event_as_it_is_written() -> None:
    """Each kind of event has an example, and each example is valid."""
    shown: set[str] = set()
    for text in re.findall(r"`(\{do: .*?\})` \|", PAGE):
        event = msgspec.convert({"at": 0, **yaml.safe_load(text)}, Event)
        shown.add(msgspec.to_builtins(event)["do"])
    known = {kind.__struct_config__.tag for kind in get_args(Event)}
    assert shown == known
