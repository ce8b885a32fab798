"""Settings mean what `.env.example` says, and a wrong one stops the start by name."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from pydantic_settings import NoDecode, SettingsError

from app.agent.models import ActionName
from app.config import Settings, load_settings, unknown_in_env_file
from app.errors import ConfigurationError
from app.settings.sources import MAX_ENV_FILE_BYTES
from app.settings.values import EXAMPLES
from app.settings.wrong import located
from scripts.settings import EXAMPLE, PAGE, Setting, documented, page

DOCUMENTED = tuple(documented(EXAMPLE.read_text()))


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_every_setting_is_documented_once_and_nothing_else_is() -> None:
    """`.env.example` and `Settings` name the same settings, each once."""
    names = [setting.name for setting in DOCUMENTED]
    assert sorted(names) == sorted(name.upper() for name in Settings.model_fields)


@pytest.mark.parametrize("setting", DOCUMENTED, ids=lambda setting: setting.name)
def test_every_setting_is_explained(setting: Setting) -> None:
    """Each setting has its meaning, as whole sentences, in the comment right above it."""
    assert setting.meaning.endswith(".")
    assert setting.section


def _choices(annotation: object) -> set[str]:
    """The values of every enumeration within a type."""
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return {one.value for one in annotation}
    return set().union(*map(_choices, get_args(annotation)))


@pytest.mark.parametrize("setting", DOCUMENTED, ids=lambda setting: setting.name)
def test_every_choice_of_a_setting_is_documented(setting: Setting) -> None:
    """Comment and default together name each value that the setting accepts."""
    choices = _choices(Settings.model_fields[setting.name.lower()].annotation)
    if setting.name == "ENABLED_ACTIONS":
        choices -= {ActionName.RESTORE}  # the undo of another action; no setting enables it
    described = set(re.findall(r"[a-z_]+", f"{setting.meaning} {setting.default}"))
    assert choices <= described


def test_a_copy_of_the_example_changes_nothing(tmp_path: Path) -> None:
    """`cp .env.example .env` gives exactly the defaults."""
    (tmp_path / ".env").write_text(EXAMPLE.read_text())
    assert Settings() == Settings(_env_file=None)


def test_the_configuration_page_is_current() -> None:
    """`docs/configuration.md` says what `.env.example` says."""
    assert PAGE.read_text() == page(iter(DOCUMENTED)), "run: python -m scripts.settings"


def test_the_defaults_are_the_careful_ones() -> None:
    """Out of the box nothing is written, high risk is blocked, and only this machine is listened to."""
    settings = Settings()
    assert settings.dry_run
    assert not settings.allow_high_risk_actions
    assert settings.host == "127.0.0.1"
    assert ActionName.RESTORE not in settings.enabled_actions


def test_the_env_file_is_read_within_bounds(tmp_path: Path) -> None:
    """A huge file uses up no memory, a pipe holds no start, and a folder is not silently no file."""
    env = tmp_path / ".env"
    env.write_bytes(b"#" * (MAX_ENV_FILE_BYTES + 1))
    with pytest.raises(ConfigurationError, match=r"\.env is larger than 1024 KiB"):
        load_settings()
    env.unlink()
    os.mkfifo(env)
    with pytest.raises(ConfigurationError, match=r"\.env is not a regular file"):
        load_settings()
    env.unlink()
    env.mkdir()
    with pytest.raises(ConfigurationError, match=r"\.env is not a regular file"):
        load_settings()


def test_a_byte_order_mark_does_not_hide_the_first_setting(tmp_path: Path) -> None:
    """An editor may write one in front; it is no part of the first name."""
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfMAX_ACTIONS_PER_INCIDENT=3\r\n")
    assert load_settings().max_actions_per_incident == 3


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the environment replaces the same line of `.env`."""
    (tmp_path / ".env").write_text("MAX_ACTIONS_PER_INCIDENT=3\nSLO_MAX_ERROR_RATE=0.2\n")
    monkeypatch.setenv("MAX_ACTIONS_PER_INCIDENT", "5")
    settings = Settings()
    assert settings.max_actions_per_incident == 5
    assert settings.slo_max_error_rate == 0.2


def test_an_empty_value_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """`KUBECONFIG=` connects no cluster, and `DRY_RUN=` stays a dry run."""
    monkeypatch.setenv("KUBECONFIG", "")
    monkeypatch.setenv("DRY_RUN", "")
    settings = Settings()
    assert settings.kubeconfig is None
    assert settings.dry_run


def test_enabled_actions_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces and empty parts of the list do not matter."""
    monkeypatch.setenv("ENABLED_ACTIONS", "restart, notify,,")
    assert Settings().enabled_actions == {ActionName.RESTART, ActionName.NOTIFY}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DRY_RUN", "perhaps"),
        ("ALLOW_HIGH_RISK_ACTIONS", "2"),
        ("MAX_ACTIONS_PER_INCIDENT", "-1"),
        ("MAX_ACTIONS_PER_INCIDENT", "21"),
        ("ENABLED_ACTIONS", "restart,rm -rf"),
        ("SLO_MAX_ERROR_RATE", "5"),
        ("SLO_MAX_ERROR_RATE", "nan"),
        ("SLO_MAX_P95_LATENCY_MS", "0"),
        ("VERIFY_INTERVAL_SECONDS", "0"),
        ("CLAIM_LEASE_SECONDS", "soon"),
        ("SERVICE_WORKLOADS", "payments-api=payments/api"),
        ("ENVIRONMENT_NAMESPACES", '["prod"]'),
        ("ALERT_TRIGGERS", '{"HighErrorRate": "rollback"}'),
        ("PORT", "65536"),
        ("MAX_BODY_BYTES", "10"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_stops_the_start_and_names_the_setting(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the setting, so that the fix is found without reading code."""
    monkeypatch.setenv(name, value)
    with pytest.raises((ValidationError, SettingsError)) as refused:
        Settings()
    assert name.lower() in str(refused.value).lower()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://agent:hunter2@db/heal"),
        ("PROMETHEUS_BEARER_TOKEN", "hunter2"),
        ("ALERTMANAGER_TOKEN", "hunter2"),
        ("NOTIFY_WEBHOOK_URL", "https://chat.example/hooks/hunter2"),
    ],
)
def test_secrets_are_not_printed(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that carry a secret show stars where they are printed or logged."""
    monkeypatch.setenv(name, value)
    settings = Settings()
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.model_dump())


def test_settings_cannot_change_after_the_start() -> None:
    """No code switches the dry run off behind the operator's back."""
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.dry_run = False  # type: ignore[misc]


# ------------------------------------------------------------------ names that are no settings


@pytest.mark.parametrize(
    ("name", "likely"),
    [
        ("APROVAL_FOR_RISKS", "APPROVAL_FOR_RISKS"),
        ("APPROVAL_FOR_RISK", "APPROVAL_FOR_RISKS"),
        ("MAX_ACTION_PER_INCIDENT", "MAX_ACTIONS_PER_INCIDENT"),
        ("REQUIRE_IDENTIY", "REQUIRE_IDENTITY"),
        ("FREEZE_WINDWOS", "FREEZE_WINDOWS"),
        ("aproval_for_risks", "APPROVAL_FOR_RISKS"),
    ],
)
def test_a_mistyped_name_in_the_environment_stops_the_start(
    name: str, likely: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit under a name that is not quite right would hold nothing back."""
    monkeypatch.setenv(name, "high")
    with pytest.raises(ConfigurationError, match=f"{name.upper()}: .*did you mean {likely}"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "likely"),
    [
        ("APROVAL_FOR_RISKS", "APPROVAL_FOR_RISKS"),
        ("DRYRUN", "DRY_RUN"),
        ("PROT", "PORT"),
        ("LOGLEVEL", "LOG_LEVEL"),
    ],
)
def test_a_mistyped_name_in_the_env_file_stops_the_start(name: str, likely: str, tmp_path: Path) -> None:
    """Short names, too: the file is the agent's own."""
    (tmp_path / ".env").write_text(f"{name}=high\n")
    with pytest.raises(ConfigurationError, match=f"{name}: .*in .env; did you mean {likely}"):
        load_settings()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"DRY_RUN=true\nAPPROVAL_FOR_RISKS: hunter2\n", ".env, line 2: sets nothing; write NAME=value"),
        (b"APPROVAL_FOR_RISKS hunter2\n", ".env, line 1: sets nothing"),
        (b"APPROVAL_FOR_RISKS:hunter2\n", ".env, line 1: sets nothing"),
        (b"DRY_RUN=true\nAPPROVAL_FOR_RISKS\n", ".env, line 2: sets nothing"),
        (b'APPROVAL_FOR_RISKS="hunter2\nDRY_RUN=true\n', "with every quote closed"),
        ("APPROVAL_FOR_RISKS=high\n".encode("utf-16"), ".env is not UTF-8 text"),
    ],
)
def test_a_line_of_the_env_file_that_sets_nothing_stops_the_start(
    content: bytes, words: str, tmp_path: Path
) -> None:
    """Skipped, it would remove the approval in silence; its text may be a secret."""
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(ConfigurationError, match=words) as refused:
        load_settings()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        "DRYRUN",
        "LOGLEVEL",
        "KUBECONFIGS",
        "KUBE_CONFIG",
        "SLACK_API_TOKEN",
        "DATABASE_URI",
        "DATABASE_PORT",
        "OPA_SERVICE_HOST",
        "OPA_SERVICE_PORT_HTTP",
        "PAYMENTS_SERVICE_HOST",
        "HEAL_PORT_8000_TCP_ADDR",
        "POLICY_DIR_PORT",
        "HTTPS_PROXY",
        "GITHUB_TOKEN",
        "CI_PIPELINE_SOURCE",
        "npm_config_loglevel",
        "PYTHONPATH",
        "AWS_SECRET_ACCESS_KEY",
        "PROMETHEUS_MULTIPROC_DIR",
    ],
)
def test_names_of_other_programs_do_not_stop_the_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ones, those of known programs, and what Kubernetes sets for every Service."""
    monkeypatch.setenv(name, "x")
    assert load_settings() == Settings()


def test_what_resembles_a_setting_and_is_none_can_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UNRELATED_NAMES, in the environment or in the file."""
    monkeypatch.setenv("SESSION_SECRET2", "x")
    (tmp_path / ".env").write_text("UNRELATED_NAMES=session_secret2, SLACK_BOT_TOKENS\nSLACK_BOT_TOKENS=x\n")
    assert load_settings().unrelated_names == {"SESSION_SECRET2", "SLACK_BOT_TOKENS"}


def test_every_mistyped_name_is_reported_and_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value may be a secret."""
    monkeypatch.setenv("SESSION_SECRETT", "hunter2")
    (tmp_path / ".env").write_text("OPA_TOKENN=hunter2\n")
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert {"SESSION_SECRETT", "OPA_TOKENN"} <= set(str(refused.value).replace(":", " ").split())
    assert "hunter2" not in str(refused.value)


def test_other_unknown_names_in_the_env_file_have_no_effect_and_are_named(tmp_path: Path) -> None:
    """They do not stop the start."""
    (tmp_path / ".env").write_text("TEAM_COLOUR=blue\nDRY_RUN=true\nexport OWNER_NAME=x\n")
    load_settings()
    assert unknown_in_env_file() == ("OWNER_NAME", "TEAM_COLOUR")


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("FREEZE_WINDOWS", '[{"nmae": "x", "hours": 1, "cron": "0 1 * * *"}]', "FREEZE_WINDOWS.0.nmae"),
        ("FREEZE_WINDOWS", '[{"name": "x", "hours": "soon", "cron": "0 1 * * *"}]', "FREEZE_WINDOWS.0.hours"),
        ("APPROVAL_ESCALATION", '[{"after_seconds": 1, "roles": [""]}]', "APPROVAL_ESCALATION.0.roles.0"),
        ("SLACK_USERS", '{"U1": {"name": "ann", "role": ["sre"]}}', "SLACK_USERS.U1.role"),
        ("ROLE_SCOPES", '{"sre": ["aprove"]}', "ROLE_SCOPES.sre.0"),
        ("ENVIRONMENT_NAMESPACES", '{"prod": "Payments"}', "ENVIRONMENT_NAMESPACES.prod"),
        ("SERVICE_WORKLOADS", '{"prod/api": "payments"}', "SERVICE_WORKLOADS.prod/api"),
        ("SERVICE_WORKLOADS", '{"api": "payments/api"}', "SERVICE_WORKLOADS.api"),
        ("SERVICE_DEPENDENCIES", '{"shop": ["prod/db"]}', "SERVICE_DEPENDENCIES.shop"),
        ("SERVICE_DEPENDENCIES", '{"prod/shop": ["prod/"]}', "SERVICE_DEPENDENCIES.prod/shop.0"),
        ("ALERT_TRIGGERS", '{"HighErrorRate": "rollback"}', "ALERT_TRIGGERS.HighErrorRate"),
        ("KAFKA_PROPERTIES", '{"a": [1]}', "KAFKA_PROPERTIES.a"),
        ("SERVICE_WORKLOADS", '{"prod/api": "a/b", "prod/api": "a/c"}', "SERVICE_WORKLOADS: "),
        ("SERVICE_WORKLOADS", '{"prod/api": ', "is not valid JSON: Expecting value at line 1, column 14"),
    ],
)
def test_a_wrong_part_of_a_json_setting_is_named_by_its_path(
    name: str, value: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Field by field, from the environment as it is written there."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert path in str(refused.value)


SIGN_ON = {
    "OIDC_ISSUER": "https://login.example.com",
    "OIDC_CLIENT_ID": "heal",
    "PUBLIC_URL": "https://heal.example.com",
    "SESSION_SECRET": "x" * 32,
}


def test_signing_on_needs_four_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """With these it is complete: a client without a secret is a public one."""
    for name, value in SIGN_ON.items():
        monkeypatch.setenv(name, value)
    assert Settings().oidc_issuer == "https://login.example.com"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"OIDC_CLIENT_ID": ""}, "OIDC_CLIENT_ID"),
        ({"PUBLIC_URL": ""}, "PUBLIC_URL"),
        ({"SESSION_SECRET": ""}, "SESSION_SECRET"),
        ({"SESSION_SECRET": "x" * 31}, "SESSION_SECRET"),
        ({"OIDC_SCOPES": "profile email"}, "OIDC_SCOPES"),
        ({"OIDC_SCOPES": "openid-not profile"}, "OIDC_SCOPES"),
    ],
)
def test_an_incomplete_sign_on_stops_the_start(
    changes: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names what is missing, and no secret."""
    for name, value in {**SIGN_ON, **changes}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=named) as refused:
        Settings()
    assert "x" * 31 not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "heal.example.com",
        "ftp://heal.example.com",
        "https://",
        "https://heal.example.com?x=1",
        "https://heal.example.com/#x",
        "https://ann@heal.example.com",
        "https://heal.example.com:99999",
        "https://heal.example.com:x",
        "https://heal .example.com",
        "https://heal.example.com\\x",
        "//heal.example.com",
        "javascript:alert(1)",
    ],
)
def test_a_public_url_is_one_that_paths_can_be_added_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in links and in the redirect URI."""
    monkeypatch.setenv("PUBLIC_URL", url)
    with pytest.raises(ValidationError, match="PUBLIC_URL"):
        Settings()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slack_bot_token": "xoxb-1"}, "SLACK_BOT_TOKEN needs SLACK_CHANNEL"),
        ({"slack_bot_token": "xoxb-1", "slack_channel": "  "}, "SLACK_BOT_TOKEN needs SLACK_CHANNEL"),
        ({"slack_channel": "C0123456789"}, "SLACK_CHANNEL needs SLACK_BOT_TOKEN"),
        ({"slack_signing_secret": "s3cr3t"}, "SLACK_SIGNING_SECRET needs SLACK_BOT_TOKEN"),
        ({"slack_app_token": "xapp-1"}, "SLACK_APP_TOKEN needs SLACK_BOT_TOKEN"),
        ({"notify_webhook_secret": "whsec_x"}, "NOTIFY_WEBHOOK_SECRET needs NOTIFY_WEBHOOK_URL"),
        ({"notify_webhook_url": "hooks/s3cr3t"}, "NOTIFY_WEBHOOK_URL must be an address"),
        ({"teams_webhook_url": "https://:x"}, "TEAMS_WEBHOOK_URL must be an address"),
        ({"oidc_client_id": "heal"}, "OIDC_CLIENT_ID needs OIDC_ISSUER"),
    ],
)
def test_what_is_set_by_half_is_reported_in_a_dry_run_too(changes: dict[str, Any], words: str) -> None:
    """And not only once writes are allowed; no secret is shown."""
    with pytest.raises(ValidationError) as caught:
        Settings(_env_file=None, **changes)
    [error] = caught.value.errors(include_url=False)
    assert words in error["msg"]
    assert "s3cr3t" not in located(error["loc"], error["msg"])


def test_a_wrong_setting_is_reported_as_it_is_written() -> None:
    """The setting in capitals, what stands below it as it is, and no more words than needed."""
    assert (
        located(("role_scopes", "sre", 0), "Input should be ...") == "ROLE_SCOPES.sre.0: Input should be ..."
    )
    assert located((), "Value error, OIDC_ISSUER needs PUBLIC_URL") == "OIDC_ISSUER needs PUBLIC_URL"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ALERT_HOME_LABELS", "prod", ("'prod' is not valid JSON", 'such as {"cluster": "eu-1"}')),
        ("APPROVAL_FOR_RISKS", "high,hihg", ("APPROVAL_FOR_RISKS: 'hihg'", "'low', 'medium' or 'high'")),
        ("ROLE", "boss", ("'boss' is not known", "'worker'")),
        ("DRY_RUN", "maybe", ("'maybe' is neither true nor false",)),
        ("PORT", "http", ("'http' is not a whole number",)),
        ("PORT", "65536", ("'65536' is too large; give 65535 or less",)),
        ("BUDGET_WINDOW_SECONDS", "0", ("'0' is too small; give a number above 0",)),
        ("SLO_MIN_REQUEST_RATE", "many", ("'many' is not a number",)),
        ("SLACK_USERS", '{"U1": "ann"}', ("'ann' does not have the right form", '"roles": ["responder"]')),
        ("SCALE_MIN_REPLICAS", "30", ("SCALE_MIN_REPLICAS=30 is above SCALE_MAX_REPLICAS=20", "lower")),
        ("BACKOFF_BASE_SECONDS", "90000", ("=90000 is above BACKOFF_MAX_SECONDS=86400", "lower")),
        ("ROLE", "watch", ("ROLE=watch requires PostgreSQL in DATABASE_URL",)),
        (
            "VERIFY_TIMEOUT_SECONDS",
            "5",
            ("VERIFY_TIMEOUT_SECONDS=5 is below VERIFY_SOAK_SECONDS=60", "raise"),
        ),
        (
            "EVIDENCE_MAX_AGE_SECONDS",
            "4",
            ("EVIDENCE_MAX_AGE_SECONDS=4 is below PROMETHEUS_TIMEOUT_SECONDS=10", "raise the first"),
        ),
        (
            "FREEZE_WINDOWS",
            '[{"name": "x", "hours": 1, "cron": "99 * * * *"}]',
            ("'99 * * * *' is not a cron expression (bad minute)", "such as '0 18 * * FRI'"),
        ),
        ("FREEZE_WINDOWS", '[{"name": "x", "hours": 1, "cron": "* *"}]', ("such as '0 18 * * FRI'",)),
    ],
)
def test_an_error_shows_the_value_and_what_would_be_right(
    name: str, value: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is enough to correct the setting without opening the documentation."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    for word in (name, *words):
        assert word in str(refused.value)


@pytest.mark.parametrize("value", ['{"sasl.password": ["hunter2"]}', "hunter2", '"hunter2"'])
def test_an_error_about_a_secret_does_not_show_it(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where it is no JSON, and not where the JSON has the wrong form."""
    monkeypatch.setenv("KAFKA_PROPERTIES", value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert "hunter2" not in str(refused.value)
    assert "KAFKA_PROPERTIES" in str(refused.value)


def test_every_example_of_a_setting_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """And every setting that is JSON has one."""
    monkeypatch.setenv("KUBECONFIG", "kubeconfig.yaml")  # of ENVIRONMENT_NAMESPACES, beside CLUSTERS
    for name, value in EXAMPLES.items():
        monkeypatch.setenv(name.upper(), value)
    load_settings()
    json_settings = {
        name
        for name, field in Settings.model_fields.items()
        if str(field.annotation).startswith(("dict", "tuple")) and NoDecode not in field.metadata
    }
    assert json_settings == set(EXAMPLES)
