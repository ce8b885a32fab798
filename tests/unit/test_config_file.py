"""Settings from one YAML file: what it may hold, what overrides it, and which line is wrong."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from app.config import load_settings
from app.errors import ConfigurationError
from app.settings.config_file import MAX_BYTES
from app.settings.services import read_services
from scripts.settings import PAGE, SCHEMA, schema
from tests.unit.heal_command import Heal

EXAMPLE = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]


def test_the_documented_file_is_read_as_it_stands(
    heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists and mappings become settings; the environment overrides them, and `heal config` says so."""
    (tmp_path / "heal.yaml").write_text(EXAMPLE + "max_services:\n")
    monkeypatch.setenv("CONFIG_FILE", "none.yaml")
    assert "(environment, heal.yaml)" in heal("config", "check", "heal.yaml").out
    monkeypatch.setenv("CONFIG_FILE", "heal.yaml")
    monkeypatch.setenv("SLO_MAX_ERROR_RATE", "0.5")
    settings = load_settings()
    assert settings.enabled_actions == {"notify", "restart"}
    assert settings.freeze_windows[0].name == "weekend"
    assert settings.alert_triggers == {"HighErrorRate": "high_error_rate"}
    assert settings.slo_max_error_rate == 0.5
    shown = {one["name"]: one["source"] for one in json.loads(heal("config", "show", "-o", "json").out)}
    assert shown["FREEZE_WINDOWS"] == "heal.yaml"
    assert (shown["SLO_MAX_ERROR_RATE"], shown["MAX_SERVICES"]) == ("environment", "default")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dry_run: true\nalow_high_risk_actions: true", "heal.yaml:2: alow_high_risk_actions is no setting"),
        ("alow_high_risk_actions: true", "use allow_high_risk_actions"),
        ("DRY_RUN: false", "DRY_RUN is no setting"),
        ("dry_run: true\ndry_run: false", "heal.yaml:2: dry_run is given twice"),
        ("config_file: other.yaml", "config_file is no setting"),
        ("- dry_run", "is not a mapping"),
        ("slack_bot_token: [xoxb-1", "heal.yaml:1: cannot be read as YAML"),
        ("slo_max_error_rate: 7", "SLO_MAX_ERROR_RATE"),
        ("enabled_actions: [reboot]", "ENABLED_ACTIONS"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    """Unknown, repeated and unusable settings stop the start; so does a file that is not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONFIG_FILE", "heal.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings()
    (tmp_path / "heal.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert said in str(caught.value)
    assert "xoxb" not in str(caught.value)


def _laughs() -> str:
    """Nine lines that stand for more values than any memory holds."""
    lines = ["environment_namespaces:", "  a: &a [x, x, x, x, x, x, x, x, x]"]
    for last, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"  {name}: &{name} [{', '.join([f'*{last}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "dry_run: true\nenvironment_namespaces:\n  prod: payments\n  prod: shop",
            "heal.yaml:4: prod is given twice",
        ),
        (
            "freeze_windows:\n- name: a\n  cron: 0 0 * * 5\n  cron: 0 0 * * 6",
            "heal.yaml:4: cron is given twice",
        ),
        (_laughs(), "heal.yaml:2: an alias repeats this value"),
        ("environment_namespaces: &a\n  prod: *a", "an alias repeats this value"),
        ("# " + "x" * MAX_BYTES, "is larger than 1024 KiB"),
        ("environment_namespaces: " + "[" * 3_000, "is nested too deeply"),
    ],
)
def test_a_file_of_two_meanings_or_without_bounds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    """YAML itself takes the last of two keys, and expands aliases until the memory is full."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONFIG_FILE", "heal.yaml")
    (tmp_path / "heal.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        load_settings()


def test_a_pipe_does_not_hold_the_start_and_a_byte_order_mark_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as this file nor as SERVICES_FILE; a file saved on Windows is read as any other."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    monkeypatch.setenv("CONFIG_FILE", "pipe")
    with pytest.raises(ConfigurationError, match="pipe is no regular file"):
        load_settings()
    with pytest.raises(ConfigurationError, match="pipe is no regular file"):
        read_services(Path("pipe"))
    Path("heal.yaml").write_bytes(b"\xef\xbb\xbfmax_actions_per_incident: 3\r\n")
    monkeypatch.setenv("CONFIG_FILE", "heal.yaml")
    assert load_settings().max_actions_per_incident == 3


def test_the_schema_is_current_and_knows_the_mistakes() -> None:
    """It is written from the settings; the documented example meets it."""
    assert SCHEMA.read_text() == schema(), "run python -m scripts.settings"
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    assert list(validator.iter_errors(yaml.safe_load(EXAMPLE))) == []
    mistakes: list[dict[str, object]] = [
        {"alow_high_risk_actions": True},
        {"slo_max_error_rate": 7},
        {"dry_run": []},
    ]
    for wrong in mistakes:
        assert list(validator.iter_errors(wrong)), wrong
