"""What cannot work in a policy is refused: unknown fields of the input, entries of another shape."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.agent.ids import JsonObject
from app.connectors.policy.bundle import shipped_policies
from app.connectors.policy.engine import check_folder
from app.connectors.policy.fields import example_input, input_schema

HEAD = "package heal\n\nimport rego.v1\n\n"
DENY = 'deny contains {"rule": "own", "reason": "no"} if '


def problems(tmp_path: Path, text: str, name: str = "own.rego") -> list[str]:
    """What is wrong with the shipped policies and one module beside them."""
    folder = tmp_path / "policies"
    shutil.copytree(shipped_policies(), folder)
    (folder / name).write_text(text)
    return [str(problem).removeprefix(f"{folder}/") for problem in check_folder(folder)]


@pytest.mark.parametrize(
    ("rule", "place", "meant"),
    [
        (DENY + 'input.enviroment == "prod"', "own.rego:5:", "input.environment"),
        (DENY + 'input["enviroment"] == "prod"', "own.rego:5:", "input.environment"),
        (DENY + "input[`servce`]", "own.rego:5:", "input.service"),
        (DENY + "input.action.rsik == 1", "own.rego:5:", "input.action.risk"),
        (DENY + "not input.incident.stal", "own.rego:5:", "input.incident.stale"),
        (DENY + "{\n\tx := input.incident\n\tx.stal\n}", "own.rego:7:", "input.incident.stale"),
        (DENY + "{\n\tx := input\n\ty := x.incident\n\ty.stal\n}", ":8:", "input.incident.stale"),
        (DENY + "{\n\tsome x in input.budgets.exceeded\n\tx.limt\n}", ":7:", "limit"),
        (DENY + "input.budgets.exceeded[_].limt", ":5:", "limit"),
        (DENY + "input.budgets.exceeded[0].limt", ":5:", "limit"),
        (DENY + "{\n\tevery x in input.budgets.shared {\n\t\tx.spnt > 1\n\t}\n}", ":7:", "spent"),
        (DENY + "count([p | some p in input.recent_actions; p.helpd]) > 1", ":5:", "helped"),
        (DENY + 'object.get(input, "enviroment", "") == "prod"', ":5:", "input.environment"),
        (DENY + 'object.get(input.incident, "stal", false)', ":5:", "input.incident.stale"),
        (DENY + "ours\n\nours if input.enviroment", ":7:", "input.environment"),
        ('deny contains {"rule": "own", "reason": input.servce}', ":5:", "input.service"),
        ('deny contains {"rule": "own", "reason": "x"} if startswith(input.servce, "x")', ":5:", "service"),
        ("default window := false\n\nwindow if input.tme", ":7:", "input.time"),
    ],
)
def test_a_field_that_no_document_has_is_refused(tmp_path: Path, rule: str, place: str, meant: str) -> None:
    """With its place and the field that was probably meant, however it is reached."""
    (problem,) = problems(tmp_path, HEAD + rule + "\n")
    assert place in problem
    assert "is not a field of the policy input" in problem
    assert f"{meant}?" in problem


def test_an_import_of_the_input_is_followed(tmp_path: Path) -> None:
    """`import input.incident as inc`."""
    text = "package heal\n\nimport rego.v1\nimport input.incident as inc\n\n" + DENY + "inc.stal\n"
    (problem,) = problems(tmp_path, text)
    assert "did you mean input.incident.stale?" in problem


def test_what_the_decision_asks_in_another_package_is_looked_at(tmp_path: Path) -> None:
    """And what it does not ask is not: it may be for another tool."""
    folder = tmp_path / "policies"
    shutil.copytree(shipped_policies(), folder)
    (folder / "lib.rego").write_text(
        "package lib\n\nimport rego.v1\n\nours if input.enviroment\n\nadmission if input.request.kind\n"
    )
    (folder / "own.rego").write_text(HEAD + DENY + "data.lib.ours\n")
    (problem,) = check_folder(folder)
    assert (problem.file, problem.line) == (str(folder / "lib.rego"), 5)


@pytest.mark.parametrize(
    "rule",
    [
        DENY + 'input.environment == "prod"',
        DENY + "input.action.parameters.replicas > 3",
        DENY + "{\n\tsome key, value in input.action.parameters\n\tkey == value\n}",
        DENY + 'object.get(input, ["team", "owner"], null) == "x"',
        DENY + 'object.get(input, "owner", null) == "x"',
        DENY + 'object.get(input, "budget", null) != null',
        DENY + "{\n\tsome name\n\tinput[name] == 1\n}",
        DENY + "own(input.target)\n\nown(target) if target.labels.owner",
        DENY + "{\n\t# input.enviroment\n\tinput.service == `input.enviroment`\n}",
        DENY + '{\n\tsprintf("input.enviroment %s", [input.service]) != ""\n}',
        DENY + '{\n\tx := {"enviroment": 1}\n\tx.enviroment == 1\n}',
        DENY + '{\n\tother with input as {"request": 1}\n}\n\nother if input.request == 1',
        DENY + "{\n\tother with input.request as 1\n}\n\nother if input.request == 1",
        DENY + "input.incident.requested_by == `ann`",
        DENY + "input.diagnosis.others[0].cause == `unknown`",
        DENY + "input.plan.actions[count(input.plan.actions) - 1] == `restart`",
        DENY + "data.teams[input.service].owner == `x`",
        'ask contains object.union({"rule": "own"}, {"reason": "x"}) if input.dry_run',
        "ask contains entry if {\n\tsome entry in data.own_entries\n}",
        'ask contains entry if {\n\tentry := {"rule": "own", "reason": sprintf("%s", [input.service])}\n}',
        "names contains name if {\n\tsome name in input.plan.actions\n}",
        DENY + "count(chosen) > 1\n\nchosen contains name if {\n\tsome name in input.plan.actions\n}",
    ],
)
def test_a_legal_policy_is_not_refused(tmp_path: Path, rule: str) -> None:
    """What is computed, optional, free of form, another input or only text is not judged."""
    assert problems(tmp_path, HEAD + rule + "\n") == []


def test_tests_may_ask_with_any_document(tmp_path: Path) -> None:
    """Their input is their own."""
    text = "package own_test\n\nimport rego.v1\n\ntest_x if not input.enviroment\n"
    assert problems(tmp_path, text, "own_test.rego") == []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('deny contains "no" if input.service', "an entry must be an object with reason and rule"),
        ('ask contains "no" if input.service', "an entry must be an object with reason and rule"),
        ('deny contains sprintf("no %s", [input.service])', "an entry must be an object"),
        ('deny contains text if {\n\ttext := "no"\n}', "an entry must be an object"),
        ('deny contains ["own", "no"]', "an entry must be an object"),
        ('deny contains {"rule": "own"} if input.service', "the entry lacks reason"),
        ('deny contains {"reason": "no"} if input.service', "the entry lacks rule"),
        ('deny contains {"rule": "own", "reasons": "no"}', "the entry lacks reason"),
        ('deny contains e if {\n\te := {"rule": "own", "message": "no"}\n}', "the entry lacks reason"),
        ('deny contains {"rule": "own", "reason": ["no"]}', "reason of the entry must be a text"),
        ('deny[text] if {\n\ttext := "no"\n}', "deny is a set of entries"),
        ('require_approval contains {"rule": "own", "reason": "no"}', "nothing reads require_approval"),
        ('require_approval contains "no"', "nothing reads require_approval"),
        ('deny_prod contains {"rule": "own", "reason": "no"}', "nothing reads deny_prod"),
        ('dney contains {"rule": "own", "reason": "no"}', "name it ask or deny"),
    ],
)
def test_an_entry_that_cannot_work_is_refused(tmp_path: Path, rule: str, words: str) -> None:
    """A text, an entry that lacks a field, and a set that nothing reads; with the place."""
    (problem,) = problems(tmp_path, HEAD + rule + "\n")
    assert problem.startswith("own.rego:")
    assert words in problem


@pytest.mark.parametrize(
    ("package", "entry", "refused"),
    [
        ("heals", '{"rule": "own", "reason": "no"}', True),
        ("heals", '"no"', True),
        ("heal.payments", '{"rule": "own", "reason": "no"}', True),
        ("main", '{"msg": "no"}', False),
    ],
)
def test_entries_of_a_package_that_nothing_reads_are_refused(
    tmp_path: Path, package: str, entry: str, refused: bool
) -> None:
    """Under another package they forbid nothing; a policy of another tool is left alone."""
    folder = tmp_path / "policies"
    shutil.copytree(shipped_policies(), folder)
    rule = f"deny contains {entry} if input.environment\n"
    (folder / "own.rego").write_text(f"package {package}\n\nimport rego.v1\n\n{rule}")
    found = [problem.message for problem in check_folder(folder)]
    assert found == ([f"nothing reads deny of package {package}: write `package heal`"] if refused else [])
    if refused:
        reader = f"ask contains entry if {{\n\tsome entry in data.{package}.deny\n}}\n"
        (folder / "reader.rego").write_text(HEAD + reader)
        assert not any("nothing reads" in problem.message for problem in check_folder(folder))


def test_a_decision_of_ones_own_may_have_entries_of_its_own_shape(tmp_path: Path) -> None:
    """What is read of an entry is taken from the decision that reads it."""
    (tmp_path / "heal.rego").write_text(
        HEAD
        + 'decision := {"decision": "deny", "reasons": [text | some text in deny]} if count(deny) > 0\n\n'
        + 'deny contains "no" if input.service\n'
    )
    assert check_folder(tmp_path) == ()


def test_a_decision_that_is_never_complete_is_refused(tmp_path: Path) -> None:
    """It would deny every action: an ordinary document shows it."""
    (tmp_path / "heal.rego").write_text(HEAD + 'decision := {"decision": "maybe", "reasons": []}\n')
    (problem,) = check_folder(tmp_path)
    assert "no complete decision" in problem.message


def test_the_example_has_every_field_that_the_schema_requires() -> None:
    """So that the shipped policy finds nothing missing in it."""
    example: JsonObject = example_input()
    assert set(input_schema()["required"]) == set(example)
