"""The documentation agrees with the code: links, commands, settings, rights, dependencies."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.agent.actions import ACTIONS
from app.agent.models import ActionName, Cause
from app.config import Settings
from app.connectors.kubernetes.access import needed_rights, supplementary_rights
from app.connectors.kubernetes.connection import group, plural
from app.connectors.kubernetes.reading.view import WATCHED
from app.settings.sources import known_names
from scripts.check_readme import blocks, read_documents
from scripts.settings import ROOT
from tests.simulation.mutants import MUTANTS
from tests.simulation.promises import PROMISES

PAGES = tuple(sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]))
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE_BLOCK = re.compile(r"```.*?```", re.DOTALL)
_SETTING = re.compile(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`")
_PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)", re.MULTILINE)
_OF_TESTS = re.compile(r"(TEST|TESTBED|PREVIOUS|SOAK|OPENAPI|SEEDS|CRASH|BROKEN)_[A-Z]+")
_NOT_SETTINGS = {"KUBEBUILDER_ASSETS", "FORWARDED_ALLOW_IPS", "NAME_FILE"}


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _yaml_blocks(page: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def _requirements() -> list[Requirement]:
    extras = cast("dict[str, list[str]]", PROJECT["optional-dependencies"])
    lines = [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    return [Requirement(line) for line in lines if not line.startswith(str(PROJECT["name"]))]


def _pins(lock: str) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in _PIN.findall((ROOT / lock).read_text())}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    """A relative link names a file that exists, and its anchor a heading of it."""
    for link in _LINK.findall(_CODE_BLOCK.sub("", page.read_text())):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_that_is_mentioned_exists(page: Path) -> None:
    """What looks like a setting in the text is one."""
    mentioned = {
        name
        for name in _SETTING.findall(page.read_text())
        if name not in _NOT_SETTINGS and not _OF_TESTS.fullmatch(name)
    }
    assert mentioned <= known_names(Settings)


def test_every_make_target_that_is_mentioned_exists() -> None:
    """`make x` in any page is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`make ([a-z-]+)", page.read_text())) <= targets, page


def test_the_readme_starts_with_the_two_commands() -> None:
    """The first commands of the README are `make run` and `make test`."""
    first = re.search(r"```sh\n(.*?)```", README, re.DOTALL)
    assert first is not None
    commands = [line.partition("#")[0].strip() for line in first[1].splitlines()]
    assert commands == ["make run", "make test"]


def test_the_quickstart_is_the_promised_five_lines() -> None:
    """The lines without make are the ones that the project promises to keep working."""
    assert blocks(README)["quickstart"].splitlines() == [
        "python -m venv .venv",
        "source .venv/bin/activate",
        "pip install '.[dev]'",
        "cp .env.example .env",
        "uvicorn app.main:app --reload",
    ]


def test_the_story_posts_the_promised_bodies() -> None:
    """The bodies of the README's curl lines are those of the HTTP contract."""
    bodies = [read_documents(body)[0] for body in re.findall(r"-d '(\{.*?\})'", blocks(README)["story"])]
    assert bodies == [
        {
            "service": "payments-api",
            "environment": "prod",
            "version": "1.15.0",
            "commit_sha": "d1e2f3a",
            "status": "failed",
            "timestamp": "2026-02-20T17:00:00Z",
        },
        {
            "service": "payments-api",
            "environment": "prod",
            "error_rate": 0.13,
            "p95_latency_ms": 1450,
            "crash_looping": True,
            "timestamp": "2026-02-20T17:01:00Z",
        },
    ]


def test_the_documented_rights_are_those_the_agent_needs() -> None:
    """The ClusterRole in docs/kubernetes.md grants exactly what `heal doctor` asks for."""
    documents = [d for block in _yaml_blocks("docs/kubernetes.md") for d in yaml.safe_load_all(block)]
    role = next(d for d in documents if d["kind"] == "ClusterRole")
    granted = {
        (verb, group, resource)
        for rule in cast("list[dict[str, Any]]", role["rules"])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    settings = Settings(_env_file=None, enabled_actions=frozenset(ActionName))
    assert granted == {(right.verb, right.group, right.resource) for right in needed_rights(settings)}


def test_the_documented_rights_on_other_controllers_are_those_the_agent_uses() -> None:
    """The rules of docs/kubernetes.md for what other controllers keep, which the chart grants too."""
    section = (ROOT / "docs/kubernetes.md").read_text().partition("### Other controllers\n")[2]
    (rules, *_) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    documented = {
        (verb, group, resource)
        for rule in yaml.safe_load(rules)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    autoscalers = {(verb, "autoscaling", "horizontalpodautoscalers") for verb in ("list", "watch")}
    used = {(right.verb, right.group, right.resource) for right in supplementary_rights()}
    assert documented | autoscalers == used
    chart = json.loads((ROOT / "deploy/helm/self-healing-devops-agent/files/rights.json").read_text())
    assert used <= {(right["verb"], right["group"], right["resource"]) for right in chart["read"]}


def test_the_agent_asks_to_watch_what_it_watches() -> None:
    """Each kind that the view of the cluster follows has the right, and no other kind has it."""
    settings = Settings(_env_file=None, enabled_actions=frozenset(ActionName))
    rights = (*needed_rights(settings), *supplementary_rights())
    asked = {(right.group, right.resource) for right in rights if right.verb == "watch"}
    assert asked == {(group(kind), plural(kind)) for kind in WATCHED}


def test_the_documented_runbook_is_the_shipped_one() -> None:
    """The example of docs/runbooks.md is a file of the catalogue."""
    example = yaml.safe_load(_yaml_blocks("docs/runbooks.md")[0])
    assert example == yaml.safe_load((ROOT / "runbooks" / f"{example['id']}.yaml").read_text())


def test_the_runbook_page_names_every_cause_and_action() -> None:
    """The vocabulary stands in the documentation, not only in the schema."""
    text = (ROOT / "docs/runbooks.md").read_text()
    named = set(re.findall(r"`([a-z_]+)`", text))
    assert {str(cause) for cause in Cause if cause is not Cause.UNKNOWN} <= named
    assert {str(name) for name in ActionName if name is not ActionName.RESTORE} <= named


@pytest.mark.parametrize("name", [name for name in ActionName if name is not ActionName.RESTORE])
def test_the_runbook_page_names_every_parameter(name: ActionName) -> None:
    """The row of an action in docs/runbooks.md names each of its parameters and their choices."""
    table = (ROOT / "docs/runbooks.md").read_text().partition("| action | parameters |")[2]
    row = next(line for line in table.splitlines() if re.match(rf"\|[^|]*`{name}`", line))
    for parameter in ACTIONS[name].parameters:
        assert re.search(rf"`{parameter.name}\b", row)
        assert all(choice in row for choice in parameter.choices or ())


def test_the_action_table_shows_the_risks() -> None:
    """docs/kubernetes.md gives each action the risk it has in code."""
    rows = re.findall(
        r"^\| `([a-z_]+)` \| (low|medium|high) \|", (ROOT / "docs/kubernetes.md").read_text(), re.M
    )
    assert dict(rows) == {
        str(name): str(spec.risk) for name, spec in ACTIONS.items() if name is not ActionName.RESTORE
    }


@pytest.mark.parametrize("requirement", _requirements(), ids=lambda requirement: requirement.name)
def test_the_lock_satisfies_what_is_asked_for(requirement: Requirement) -> None:
    """Each direct dependency is locked at a version that pyproject.toml allows."""
    version = _pins("requirements-dev.lock")[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)


def test_the_locks_agree() -> None:
    """A test runs what production runs; every optional part is in the lock with all of them."""
    least, extras, dev = map(
        _pins, ("requirements.lock", "requirements-extras.lock", "requirements-dev.lock")
    )
    assert least.items() <= extras.items() <= dev.items()
    optional = cast("dict[str, list[str]]", PROJECT["optional-dependencies"])
    named = {
        canonicalize_name(Requirement(line).name)
        for extra, lines in optional.items()
        for line in lines
        if extra != "dev"
    }
    assert named <= extras.keys()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-extras.lock", "requirements-dev.lock"])
def test_locks_pin_contents_and_name_no_index(lock: str) -> None:
    """Every package carries hashes, and the file works with any index."""
    text = (ROOT / lock).read_text()
    packages = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert packages
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in text
    assert "--index" not in text


def test_every_dependency_is_explained() -> None:
    """docs/dependencies.md has a row for each direct dependency, with the locked version."""
    rows = re.findall(
        r"^\| ([A-Za-z0-9-]+) \| ([0-9.]+) \|", (ROOT / "docs/dependencies.md").read_text(), re.M
    )
    pins = _pins("requirements-dev.lock")
    direct = {canonicalize_name(requirement.name) for requirement in _requirements()}
    assert {canonicalize_name(name): version for name, version in rows} == {n: pins[n] for n in direct}


def test_every_decision_record_is_listed() -> None:
    """docs/adr/README.md lists every record."""
    folder = ROOT / "docs" / "adr"
    records = {page.name for page in folder.glob("0*.md")}
    assert records == set(_LINK.findall((folder / "README.md").read_text()))


def test_the_table_of_promises_names_every_check_and_broken_build() -> None:
    """And only tests that exist."""
    page = (ROOT / "docs" / "promises.md").read_text()
    rows = {
        int(number): [set(re.findall(r"`([^`]+)`", cell)) for cell in cells.split("|")[:3]]
        for number, cells in re.findall(r"^\| (\d+) \| (.*)$", page, re.MULTILINE)
    }
    assert rows.keys() == PROMISES.keys() - {0}
    for number, (checks, builds, files) in rows.items():
        assert checks == {PROMISES[number].__name__}, number
        assert builds == {one.name for one in MUTANTS.values() if one.promise == number}, number
        assert files, number
        assert all((ROOT / name).is_file() for name in files), number
