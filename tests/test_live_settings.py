"""Settings that take effect while the agent runs: what changes, what needs a restart, and a wrong file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
import yaml

from app.agent.execution.recheck import lapsed
from app.agent.identity.people import ApprovalTerms
from app.agent.models import DecisionKind, IncidentState, Objectives
from app.agent.ports.cluster import ClusterReader
from app.bootstrap import Adapters, Container
from app.config import Settings, load_settings
from app.connectors.readiness import settings_read
from app.settings.live_names import LIVE
from app.settings.sources import secret_settings
from app.terms import guardrails
from app.terms.live import LiveSettings
from testbed.waiting import NotYet, wait_for
from tests.stories import ACTING, KEY, NAMESPACE, SERVICE, LastLook, Story, messages, settings_for, story
from tests.unit.heal_command import REPOSITORY, running_agent

CHANGED: dict[str, Any] = {
    "allow_high_risk_actions": True,
    "enabled_actions": ["notify"],
    "max_actions_per_incident": 1,
    "max_actions_per_service": 1,
    "max_actions_per_namespace": 1,
    "max_actions_per_cluster": 1,
    "budget_window_seconds": 1,
    "max_fleet_share": 0.1,
    "max_replica_share": 0.1,
    "cooldown_seconds": 1,
    "backoff_base_seconds": 1,
    "backoff_max_seconds": 1,
    "circuit_failures_per_service": 1,
    "circuit_failures_per_cluster": 1,
    "circuit_open_seconds": 1,
    "freeze_windows": [{"name": "weekend", "cron": "0 18 * * FRI", "hours": 62}],
    "action_memory_seconds": 1,
    "require_opt_in": True,
    "approval_for_risks": ["high"],
    "approval_roles": ["lead"],
    "approval_people": 2,
    "approval_escalation": [{"after_seconds": 1, "roles": ["lead"]}],
    "slo_max_error_rate": 0.5,
    "slo_max_p95_latency_ms": 5,
    "slo_min_request_rate": 5,
    "log_level": "warning",
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty CONFIG_FILE, and no other setting."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONFIG_FILE", str(tmp_path / "heal.yaml"))
    level = logging.getLogger("app").level
    yield _written(tmp_path / "heal.yaml")
    logging.getLogger("app").setLevel(level)


def _written(file: Path, **values: Any) -> Path:
    return _saved(file, yaml.safe_dump(values))


def _saved(file: Path, text: str | None) -> Path:
    """The file with this content; None: without the file."""
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    return file


def _in_force(live: LiveSettings) -> tuple[object, ...]:
    """What decisions and the log use."""
    return guardrails(live.settings), live.objectives, logging.getLogger("app").level


def test_each_setting_that_changes_while_running_is_in_force(file: Path) -> None:
    """Every one of the list has an effect; none is a secret, and a value of before comes back."""
    assert set(CHANGED) == LIVE
    assert not LIVE & secret_settings(Settings)
    live = LiveSettings(load_settings())
    live.reload()
    before = _in_force(live)
    for name, value in CHANGED.items():
        _written(file, **{name: value})
        assert live.reload(), name
        assert _in_force(live) != before, name
        assert not live.needs_restart
        _written(file)
        assert live.reload(), name
        if name != "log_level":
            assert _in_force(live)[:2] == before[:2]


def test_other_settings_need_a_restart_and_the_environment_wins(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are named until they are as at the start again; those of the environment do not change."""
    caplog.set_level(logging.INFO, logger="app")
    monkeypatch.setenv("MAX_ACTIONS_PER_INCIDENT", "3")
    live = LiveSettings(load_settings())
    _written(file, dry_run=False, opa_url="http://opa", max_actions_per_incident=9, cooldown_seconds=60)
    assert live.reload()
    assert (live.settings.dry_run, live.settings.opa_url) == (True, None)
    assert (live.settings.max_actions_per_incident, live.settings.cooldown_seconds) == (3, 60)
    assert live.needs_restart == ("DRY_RUN", "OPA_URL")
    assert "in force now: COOLDOWN_SECONDS" in caplog.text
    assert "need a restart: DRY_RUN, OPA_URL" in caplog.text
    _written(file, cooldown_seconds=60)
    assert not live.reload()
    assert not live.needs_restart


async def test_an_invalid_file_changes_nothing_and_is_reported(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One log line and a remark of readiness, until the file is valid; the agent stays ready."""
    live = LiveSettings(load_settings())
    ((name, check),) = settings_read(live)
    assert name == "configuration file"
    assert await check() is None
    assert not settings_read(None)
    _written(file, cooldown_seconds=60)
    live.reload()
    for text in ("cooldown_seconds: 1\nno_setting: 1", "cooldown_seconds: soon", "[", "cooldown_seconds: -1"):
        _saved(file, text)
        assert not live.reload()
        assert not live.reload()
        assert live.settings.cooldown_seconds == 60
        remark = await check()
        assert remark is not None
        assert remark.startswith("invalid, the last valid content stays in force: ")
    _saved(file, None)
    live.reload()
    assert "cannot be read" in str(await check())
    logged = [one for one in caplog.messages if one.startswith("configuration file invalid")]
    assert len(logged) == 5
    _written(file, cooldown_seconds=30, port=9)
    assert live.reload()
    assert live.settings.cooldown_seconds == 30
    assert await check() == "changed settings that need a restart: PORT"


def test_a_mistake_outside_the_file_is_not_the_end_of_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret's file that is missing for a moment, as in a rotation; nested beyond reason is a mistake."""
    secret = file.with_name("token")
    secret.write_text("9f8e7d6c5b4a3928\n")
    monkeypatch.setenv("HEAL_TOKEN_FILE", str(secret))
    live = LiveSettings(load_settings())
    secret.unlink()
    _written(file, cooldown_seconds=60)
    assert not live.reload()
    assert "HEAL_TOKEN_FILE" in str(live.problem)
    secret.write_text("9f8e7d6c5b4a3928\n")
    assert live.reload()
    assert (live.settings.cooldown_seconds, live.problem) == (60, None)
    _saved(file, "[" * 20_000)
    assert not live.reload()
    assert "nested deeper than" in str(live.problem)


def test_a_running_agent_follows_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a signal or a restart; `/readyz` shows a mistake, and that the agent is ready."""
    monkeypatch.setenv("DATABASE_URL", "sqlite:///heal.db")
    monkeypatch.setenv("RUNBOOKS_DIR", str(REPOSITORY / "runbooks"))

    def remark(url: str, words: str) -> bool | NotYet:
        answer = httpx2.get(f"{url}/readyz", timeout=60, verify=False)
        checks = {one["name"]: one["message"] for one in answer.json()["checks"]}
        return True if words in checks["configuration file"] else NotYet(str(checks))

    with running_agent(file.parent) as url:
        for text, words in (
            ("no_setting: 1", "no_setting is not a setting"),
            ("breach_for_seconds: 9", "need a restart: BREACH_FOR_SECONDS"),
        ):
            _saved(file, text)
            wait_for(words, partial(remark, url, words), timeout_seconds=120)


async def test_a_guardrail_that_changes_takes_effect_while_the_agent_runs(tmp_path: Path) -> None:
    """High-risk actions are denied, then allowed with an approval, without a restart."""
    file, changes = _written(tmp_path / "heal.yaml"), dict[str, Any]()

    def read_again() -> Settings:
        return settings_for(tmp_path, dry_run=False, config_file=file, **changes)

    async with story(tmp_path, dry_run=False, config_file=file, read_again=read_again) as stage:
        agent = stage.agent
        stage.deploy()
        await stage.live(400)
        assert not agent.loop.stages.executor.policy.limits.allow_high_risk
        changes |= {
            "allow_high_risk_actions": True,
            "approval_for_risks": {"high"},
            "slo_max_error_rate": 0.02,
            "enabled_actions": {"rollback", "cordon"},
        }
        _written(file, changed=True)
        agent.reload_settings()
        assert _objectives(agent) == (0.02, 0.02, 0.02)
        assert agent.loop.stages.limits_of_plans.optional == {"cordon"}
        stage.world.release("prod", KEY.service, "shop:2-errors")
        approval = await stage.live_until_asked()
        await stage.say(approval, yes=True)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)


async def test_an_approval_that_is_required_after_the_decision_holds(tmp_path: Path) -> None:
    """The settings change between the decision and its write: nothing begins without an approval."""
    file, stages = _written(tmp_path / "heal.yaml"), list[Story]()

    def read_again() -> Settings:
        return settings_for(tmp_path, **ACTING, config_file=file, approval_for_risks={"high"})

    def tighten() -> None:
        _written(file, changed=True)
        stages[0].agent.reload_settings()

    def connected(world: Adapters) -> Adapters:
        return replace(world, reader=cast("ClusterReader", LastLook(world.reader, tighten)))

    async with story(
        tmp_path, connected=connected, config_file=file, read_again=read_again, **ACTING
    ) as stage:
        stages.append(stage)
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until(lambda r: any(i.outcome is not None for i in r.intents))
        (intent,) = record.intents
        assert (intent.decision.kind, intent.approval) == (DecisionKind.ALLOW, None)
        assert intent.started_at is None, messages(record.timeline)
        assert "rollback is high risk, and APPROVAL_FOR_RISKS requires an approval" in messages(
            record.timeline
        )
        assert stage.marker() is None


async def test_an_approval_counts_only_on_the_terms_in_force(tmp_path: Path) -> None:
    """More people or other roles void it; fewer do not, nor do roles that a policy overrides."""
    asking = {**ACTING, "approval_for_risks": {"high"}, "approval_roles": ["sre"]}
    async with story(tmp_path, **asking) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        await stage.say(await stage.live_until_asked(), yes=True, roles=["sre"])
        record = await stage.live_until(lambda r: bool(r.intents))
        intent, limits = record.intents[0], stage.agent.loop.stages.executor.policy.limits
    by_policy = replace(intent, decision=replace(intent.decision, policy_roles=True))
    for used, terms, counts in (
        (intent, ApprovalTerms(roles=("sre",)), True),
        (intent, ApprovalTerms(), True),
        (intent, ApprovalTerms(roles=("lead", "sre")), True),
        (intent, ApprovalTerms(roles=("lead",)), False),
        (intent, ApprovalTerms(roles=("sre",), people=2), False),
        (by_policy, ApprovalTerms(roles=("lead",)), True),
        (by_policy, ApprovalTerms(people=2), False),
    ):
        now = replace(limits, approval_terms=terms)
        why = lapsed(record, used, now, intent.decision.at, can_write=True)
        assert (why is None) is counts, terms
        assert why is None or why.endswith("the settings now require approval by other people")


def _objectives(agent: Container) -> tuple[float | None, ...]:
    """The error rate that intake, verification and evidence judge by."""
    stages = agent.loop.stages
    seen: Objectives | None = agent.observer._objectives_of(KEY)
    assert seen is not None
    return (
        agent.intake.rules.slo.of(KEY).max_error_rate,
        stages.verifier.rules_of(KEY).slo.max_error_rate,
        seen.max_error_rate,
    )
