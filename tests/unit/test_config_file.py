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
        (
            "dry_run: true\nalow_high_risk_actions: true",
            "heal.yaml:2:1: alow_high_risk_actions is not a setting",
        ),
        ("alow_high_risk_actions: true", "use allow_high_risk_actions"),
        ("DRY_RUN: false", "DRY_RUN is not a setting"),
        ("dry_run: true\ndry_run: false", "heal.yaml:2:1: the key 'dry_run' stands here twice"),
        ("config_file: other.yaml", "config_file is not a setting"),
        ("- dry_run", "is not a mapping"),
        ("slack_bot_token: [xoxb-1", "heal.yaml:2:1: no valid YAML"),
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
            "heal.yaml:4:3: the key 'prod' stands here twice",
        ),
        (
            "freeze_windows:\n- name: a\n  cron: 0 0 * * 5\n  cron: 0 0 * * 6",
            "heal.yaml:4:3: the key 'cron' stands here twice",
        ),
        (_laughs(), "heal.yaml:2:6: anchors and aliases are not allowed"),
        ("environment_namespaces: &a\n  prod: *a", "heal.yaml:1:25: anchors and aliases are not allowed"),
        ("# " + "x" * MAX_BYTES, "is larger than 1024 KiB"),
        ("environment_namespaces: " + "[" * 3_000, "nested deeper than 16 levels"),
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


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("max_actions_per_incident: 010", "write it in decimal"),
        ("max_actions_per_incident: 08", "write it in decimal"),
        ("max_actions_per_incident: 0x10", "write it in decimal"),
        ("max_actions_per_incident: 0o17", "write it in decimal"),
        ("max_actions_per_incident: 1_000", "write it in decimal"),
        ("cooldown_seconds: 1:30", "write it in decimal"),
        ("# stays on\u2028dry_run: false", "U+2028 ends a line"),
        ("cooldown_seconds: 1:30.5", "write it in decimal"),
        ("cooldown_seconds: 1e3", "write it in decimal"),
        ("dry_run: yes", "write true or false"),
        ("dry_run: off", "write true or false"),
        ("slack_bot_token: 2026-02-20", "put it in quotes"),
        ("slack_bot_token: 012345", "write it in decimal"),
        ("slack_bot_token: !xoxb-1 a", "a tag is not allowed"),
        ("environment_namespaces: {no: payments}", "keys are plain words"),
    ],
)
def test_a_value_that_versions_of_yaml_read_differently_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, fix: str
) -> None:
    """YAML 1.1 reads 010 as 8 and yes as true, YAML 1.2 as 10 and as text; the error repeats no value."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONFIG_FILE", "heal.yaml")
    (tmp_path / "heal.yaml").write_text(f"max_services: 5000\n{line}\n")
    with pytest.raises(ConfigurationError, match=re.escape(fix)) as caught:
        load_settings()
    assert "heal.yaml:2:" in str(caught.value)
    assert line.partition(": ")[2] not in str(caught.value)


def test_numbers_texts_and_quoted_values_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What every version of YAML reads alike is taken, and so is whatever stands in quotes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONFIG_FILE", "heal.yaml")
    (tmp_path / "heal.yaml").write_text(
        "slo_max_error_rate: .5\ncooldown_seconds: +90\ndry_run: True\nalert_home_labels:\n"
        '  cluster: "010"\n  "no": "yes"\n  region: y\n  build: 1.2.3\n'
    )
    settings = load_settings()
    assert (settings.slo_max_error_rate, settings.cooldown_seconds, settings.dry_run) == (0.5, 90, True)
    assert settings.alert_home_labels == {"cluster": "010", "no": "yes", "region": "y", "build": "1.2.3"}
    (tmp_path / "heal.yaml").write_text("# nothing yet\n")
    assert load_settings().cooldown_seconds != 90


def test_a_pipe_does_not_hold_the_start_and_a_byte_order_mark_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as this file nor as SERVICES_FILE; a file saved on Windows is read as any other."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    monkeypatch.setenv("CONFIG_FILE", "pipe")
    with pytest.raises(ConfigurationError, match="pipe is not a regular file"):
        load_settings()
    with pytest.raises(ConfigurationError, match="pipe is not a regular file"):
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
