"""The catalogue is reviewed data: what is not fully understood stops the start, with its place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from app.agent.actions import ACTIONS
from app.agent.models import ActionName, Cause
from app.agent.runbooks import load_catalogue, runbook_schema
from app.errors import ConfigurationError

SHIPPED = Path(__file__).parents[2] / "runbooks"

GOOD = """\
schema: 1
id: roll-back
version: 3
title: Roll back
causes: [bad_release]
min_confidence: 0.7
steps:
  - action: rollback
    parameters:
      to: previous_healthy
"""


def write(folder: Path, text: str | bytes, name: str = "one.yaml") -> Path:
    content = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(content)
    return folder


def refusal(folder: Path) -> str:
    """The message of the error that stops the start, without the folder's name."""
    with pytest.raises(ConfigurationError) as caught:
        load_catalogue(folder)
    return str(caught.value).replace(f"{folder}/", "")


def changed(old: str, new: str) -> str:
    """The good runbook with one passage replaced."""
    assert old in GOOD
    return GOOD.replace(old, new)


def test_the_shipped_catalogue_loads_and_names_only_actions_that_may_be_in_a_runbook() -> None:
    """What the product ships passes its own checks."""
    catalogue = load_catalogue(SHIPPED)
    assert {
        "restart-leaking-service",
        "revert-bad-config",
        "roll-back-bad-release",
        "scale-for-surge",
    } <= {r.id for r in catalogue.runbooks}
    assert catalogue.check_examples() >= 2 * len(catalogue.runbooks)
    for runbook in catalogue.runbooks:
        assert runbook.source.endswith(f"{runbook.id}.yaml")
        assert all(ACTIONS[step.action].in_runbooks for step in runbook.steps)


def test_no_shipped_runbook_touches_anything_for_causes_that_need_a_person() -> None:
    """Escalation is the answer to them."""
    acting = [r for r in load_catalogue(SHIPPED).runbooks if r.steps]
    assert {c for r in acting for c in r.causes}.isdisjoint(
        {
            Cause.DEPENDENCY_FAILURE,
            Cause.IRREVERSIBLE_RELEASE,
            Cause.TELEMETRY_OUTAGE,
            Cause.ADMISSION_REFUSAL,
            Cause.MISSING_CONFIGURATION,
            Cause.REGISTRY_FAILURE,
            Cause.SCALED_TO_ZERO,
            Cause.UNKNOWN,
        }
    )


def test_every_cause_has_an_approved_answer_without_steps() -> None:
    """Whatever a runbook with steps objects to, a person gets instructions."""
    escalating = [r for r in load_catalogue(SHIPPED).runbooks if r.escalate]
    assert {c for r in escalating for c in r.causes} == set(Cause) - {Cause.UNKNOWN}
    assert all(r.min_confidence == 0.5 and not r.steps for r in escalating)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("escalate: [Look at it.]\n", "exactly one of escalate, steps is needed"),
        ("scope: {clusters: [one]}\n", "unknown key"),
        ("scope: {kinds: [Job]}\n", "is not one of"),
        (
            "examples:\n  - {cause: bad_release, confidence: 0.9, selected: false}\n",
            "the example bad release at 90% of shop in prod fails: it applies",
        ),
        (
            "scope: {environments: [staging]}\n"
            "examples:\n  - {cause: bad_release, confidence: 0.9, selected: true}\n",
            "is limited to the environment staging, not prod",
        ),
    ],
)
def test_a_wrong_answer_scope_or_example_is_refused(tmp_path: Path, change: str, complaint: str) -> None:
    """An example that fails stops the start, as any other mistake does."""
    with pytest.raises(ConfigurationError, match=complaint):
        load_catalogue(write(tmp_path, GOOD + change))


def test_examples_do_not_count_for_the_hash(tmp_path: Path) -> None:
    """A plan stays valid when someone adds an example."""
    (before,) = load_catalogue(write(tmp_path, GOOD)).runbooks
    example = "examples:\n  - {cause: bad_release, confidence: 0.9, selected: true}\n"
    (after,) = load_catalogue(write(tmp_path, GOOD + example)).runbooks
    assert (before.hash, len(after.examples)) == (after.hash, 1)


def test_a_runbook_is_read_whole(tmp_path: Path) -> None:
    """Every field arrives as written."""
    (runbook,) = load_catalogue(write(tmp_path, GOOD)).runbooks
    assert runbook.reference == "roll-back@3"
    assert runbook.causes == (Cause.BAD_RELEASE,)
    assert runbook.min_confidence == 0.7
    assert [(s.action, dict(s.parameters)) for s in runbook.steps] == [
        (ActionName.ROLLBACK, {"to": "previous_healthy"})
    ]


def test_the_hash_follows_the_content_and_nothing_else(tmp_path: Path) -> None:
    """Comments and the order of keys leave it; any value changes it."""
    first = load_catalogue(write(tmp_path, GOOD))
    lines = GOOD.splitlines()
    moved = "\n".join(["# reviewed", lines[3], lines[0], lines[2], lines[1], *lines[4:]])
    assert load_catalogue(write(tmp_path, moved)).hash == first.hash
    for old, new in (("0.7", "0.8"), ("version: 3", "version: 4"), ("Roll back", "Go back")):
        assert load_catalogue(write(tmp_path, changed(old, new))).hash != first.hash


REFUSED = {
    "an unknown action": (
        changed("action: rollback", "action: reboot"),
        r"one\.yaml:8:13: steps\[0\]\.action: 'reboot' is not one of: .*rollback",
    ),
    "the undo as an action": (
        changed("action: rollback", "action: restore"),
        r"one\.yaml:8:13: steps\[0\]\.action: 'restore' is not one of",
    ),
    "a missing parameter": (
        changed("    parameters:\n      to: previous_healthy\n", ""),
        r"one\.yaml:8:5: steps\[0\]: parameters is missing",
    ),
    "an empty mapping of parameters": (
        changed("parameters:\n      to: previous_healthy", "parameters: {}"),
        r"one\.yaml:9:17: steps\[0\]\.parameters: to is missing",
    ),
    "an unknown parameter": (
        changed("      to:", "      revision: 4\n      to:"),
        r"one\.yaml:10:7: steps\[0\]\.parameters\.revision: unknown key; allowed here: to",
    ),
    "a parameter of an action that has none": (
        changed("action: rollback", "action: restart"),
        r"one\.yaml:10:7: steps\[0\]\.parameters\.to: unknown key; allowed here: when",
    ),
    "a wrong word": (
        changed("previous_healthy", "latest"),
        r"one\.yaml:10:11: steps\[0\]\.parameters\.to: 'latest' is not one of: previous_healthy",
    ),
    "a shell command beside the action": (
        changed("    parameters:", "    command: kubectl delete pod --all\n    parameters:"),
        r"one\.yaml:9:5: steps\[0\]\.command: a runbook runs no commands",
    ),
    "a script among the parameters": (
        changed("      to: previous_healthy", "      script: rm -rf /"),
        r"one\.yaml:10:7: steps\[0\]\.parameters\.script: a runbook runs no commands",
    ),
    "a step that is a shell string": (
        changed("- action: rollback\n    parameters:\n      to: previous_healthy", "- kubectl rollout undo"),
        r"one\.yaml:8:5: steps\[0\]: 'kubectl rollout undo' is not of type 'object'",
    ),
    "an unknown key": (changed("title:", "owner: me\ntitle:"), r"one\.yaml:4:1: owner: unknown key"),
    "a missing key": (changed("version: 3\n", ""), r"one\.yaml:1:1: version is missing"),
    "a version as text": (
        changed("version: 3", "version: '3'"),
        r"one\.yaml:3:10: version: '3' is not of type",
    ),
    "a version as a fraction": (
        changed("version: 3", "version: 3.0"),
        r"one\.yaml:3:10: version: 3\.0 is not",
    ),
    "a truth value as a version": (
        changed("version: 3", "version: true"),
        r"one\.yaml:3:10: version: True is not",
    ),
    "another format": (changed("schema: 1", "schema: 2"), r"one\.yaml:1:9: schema: 1 was expected"),
    "an unknown cause": (changed("[bad_release]", "[gremlins]"), r"one\.yaml:5:10: causes\[0\]: 'gremlins'"),
    "the unknown as a cause": (
        changed("[bad_release]", "[unknown]"),
        r"one\.yaml:5:10: causes\[0\]: 'unknown'",
    ),
    "no cause": (changed("[bad_release]", "[]"), r"one\.yaml:5:9: causes: "),
    "a confidence above one": (changed("0.7", "1.5"), r"one\.yaml:6:17: min_confidence: 1\.5"),
    "a careless confidence": (changed("0.7", "0.1"), r"one\.yaml:6:17: min_confidence: 0\.1"),
    "a confidence that is no number": (
        changed("0.7", ".nan"),
        r"one\.yaml:6:17: '\.nan' is not a finite number",
    ),
    "a key twice": (changed("title:", "id: other\ntitle:"), r"one\.yaml:4:1: the key 'id' stands here twice"),
    "a key twice inside a step": (
        changed("      to:", "      to: previous_healthy\n      to:"),
        r"one\.yaml:11:7: the key 'to' stands here twice",
    ),
    "an anchor": (
        changed("Roll back", "&name Roll back"),
        r"one\.yaml:4:8: anchors and aliases are not allowed",
    ),
    "an alias bomb": (
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        r"one\.yaml:1:4: anchors and aliases are not allowed",
    ),
    "a merge key": (changed("title:", "<<: {a: 1}\ntitle:"), r"one\.yaml:4:1: keys are plain words"),
    "a Python object": (
        changed("Roll back", "!!python/object/apply:os.system ['true']"),
        r"one\.yaml:4:8: the tag .*python.* is not allowed",
    ),
    "a date": (changed("Roll back", "2026-01-01"), r"one\.yaml:4:8: '2026-01-01' is neither text nor number"),
    "a number that is 8 or 10": (
        changed("version: 3", "version: 010"),
        r"one\.yaml:3:10: '010' has another meaning in another version of YAML",
    ),
    "a word that is a truth value": (
        changed("Roll back", "yes"),
        r"one\.yaml:4:8: 'yes' has another meaning in another version of YAML: write true or false",
    ),
    "a huge number": (changed("version: 3", f"version: {'9' * 5000}"), r"one\.yaml:3:10: '9+' is no number"),
    "a bottomless nest": ("a: " + "[" * 5000, r"one\.yaml:1:\d+: nested deeper than 16 levels"),
    "two documents": (GOOD + "---\n" + GOOD, r"one\.yaml:1:1: one runbook is expected in a file, found 2"),
    "an empty file": ("", r"one\.yaml:1:1: one runbook is expected in a file, found 0"),
    "only a comment": ("# later\n", r"one\.yaml:1:1: one runbook is expected"),
    "a list": ("- a\n", r"one\.yaml:1:1: \['a'\] is not of type 'object'"),
    "broken YAML": (changed("causes: [", "causes: [["), r"one\.yaml:\d+:\d+: no valid YAML"),
    "a control character": (changed("Roll back", "Roll\x00back"), r"one\.yaml:1:1: no valid YAML"),
    "a number as a key": (changed("title:", "7: x\ntitle:"), r"one\.yaml:4:1: keys are plain words"),
    "a list as a key": (changed("title:", "? [a]\n: x\ntitle:"), r"one\.yaml:4:3: keys are plain words"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    """File, line and column of the very thing, and what to do about it."""
    text, message = REFUSED[name]
    told = refusal(write(tmp_path, text))
    assert re.match(message, told), told


def test_scale_needs_exactly_one_of_its_parameters(tmp_path: Path) -> None:
    """`by`, `to` and `restore` are alternatives; numbers are bounded."""

    def scale(parameters: str) -> str:
        return changed("action: rollback", "action: scale").replace("to: previous_healthy", parameters)

    assert load_catalogue(write(tmp_path, scale("by: 2"))).runbooks[0].steps[0].parameters == {"by": 2}
    assert "exactly one of by, restore, to is needed" in refusal(write(tmp_path, scale("by: 2\n      to: 5")))
    assert ":10:11: steps[0].parameters.by: 0 is less than" in refusal(write(tmp_path, scale("by: 0")))
    assert "99999 is greater than" in refusal(write(tmp_path, scale("to: 99999")))
    assert "2.0 is not of type 'integer'" in refusal(write(tmp_path, scale("by: 2.0")))
    assert "is not one of" in refusal(write(tmp_path, scale("restore: all")))


def test_an_id_is_taken_once(tmp_path: Path) -> None:
    """Two files with one id are refused, naming both."""
    write(tmp_path, GOOD)
    told = refusal(write(tmp_path, "# copy\n" + GOOD, "two.yml"))
    assert re.match(r"two\.yml:3:5: id: 'roll-back' is taken by one\.yaml", told), told


def test_a_folder_without_runbooks_is_refused(tmp_path: Path) -> None:
    """An agent that could do nothing was surely not meant; other files do not count."""
    assert "no runbook" in refusal(write(tmp_path, GOOD, "notes.txt"))
    with pytest.raises(ConfigurationError, match=r"cannot be read .*RUNBOOKS_DIR"):
        load_catalogue(tmp_path / "missing")


def test_files_that_cannot_be_text_are_refused(tmp_path: Path) -> None:
    """Too large, not UTF-8, or not readable at all."""
    assert "larger than 64 KiB" in refusal(write(tmp_path, "#" * 70_000))
    assert "not UTF-8: byte 7" in refusal(write(tmp_path, b"title: \xff\xfe"))
    (tmp_path / "one.yaml").unlink()
    (tmp_path / "one.yaml").symlink_to(tmp_path / "nowhere")
    assert "no runbook" in refusal(tmp_path)


def test_the_schema_file_and_the_actions_say_the_same() -> None:
    """The shipped schema is a copy for editors; the actions are the truth."""
    schema = json.loads(json.dumps(runbook_schema()))
    Draft202012Validator.check_schema(schema)
    allowed = [spec for spec in ACTIONS.values() if spec.in_runbooks]
    step = schema["$defs"].pop("step")
    assert schema["$defs"] == {spec.name.value: spec.schema() for spec in allowed}
    assert step["properties"]["action"]["enum"] == [spec.name.value for spec in allowed]
    conditions = {c["if"]["properties"]["action"]["const"]: c["then"] for c in step["allOf"]}
    assert set(conditions) == {spec.name.value for spec in allowed}
    for spec in allowed:
        needs = any(p.required for p in spec.parameters) or spec.exactly_one_parameter
        assert conditions[spec.name.value].get("required", []) == (["parameters"] if needs else [])
    causes = schema["properties"]["causes"]["items"]["enum"]
    assert causes == [c.value for c in Cause if c is not Cause.UNKNOWN]
