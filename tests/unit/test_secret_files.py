"""Secrets from files: NAME_FILE in place of NAME, and every file that cannot be used."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.config import Settings, load_settings
from app.errors import ConfigurationError
from app.redaction import redacted
from app.settings.secret_files import MAX_BYTES
from app.settings.sources import secret_settings
from tests.unit.heal_command import Heal

SECRET = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def _written(path: Path, text: str | bytes = SECRET + "\n") -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_each_secret_setting_is_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounted as links to files that every user may read; the line break at the end is left out."""
    texts = {
        "database_url": f"postgresql://heal:{SECRET}@db/heal",
        "intake_from": f"kafka://broker/deploys\nredis://:{SECRET}@queue/metrics",
        "kafka_properties": json.dumps({"sasl.password": SECRET}, indent=1),
        "notify_webhook_url": f"https://chat.example/{SECRET}",
        "teams_webhook_url": f"https://teams.example/{SECRET}",
        "heartbeat_url": f"https://ping.example/{SECRET}",
    }
    for name in secret_settings(Settings):
        target = _written(tmp_path / f"..{name}", texts.get(name, SECRET) + "\r\n")
        target.chmod(0o444)
        (tmp_path / name).symlink_to(target)
        monkeypatch.setenv(f"{name.upper()}_FILE", str(tmp_path / name))
    monkeypatch.setenv("LOKI_URL", "https://loki.example")
    needed = {"AUDIT_ANCHOR_DIR": str(tmp_path), "SLACK_CHANNEL": "C1", "OIDC_ISSUER": "https://id.example"}
    for name, value in {**needed, "OIDC_CLIENT_ID": "heal", "PUBLIC_URL": "https://heal.example"}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    for name in secret_settings(Settings) - set(texts):
        assert getattr(settings, name).get_secret_value() == SECRET, name
    assert settings.database_url.get_secret_value() == texts["database_url"]
    assert [one.get_secret_value() for one in settings.intake_from] == texts["intake_from"].split()
    assert settings.kafka_properties["sasl.password"].get_secret_value() == SECRET
    assert SECRET not in redacted(f"the server said: wrong password {SECRET}")
    assert SECRET not in repr(settings)


def test_a_byte_order_mark_is_no_part_of_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notepad and PowerShell write one; with it, every request with the token would be refused."""
    _written(tmp_path / "token", b"\xef\xbb\xbf" + SECRET.encode() + b"\r\n")
    monkeypatch.setenv("HEAL_TOKEN_FILE", "token")
    token = load_settings().heal_token
    assert token is not None
    assert token.get_secret_value() == SECRET


def _fifo(path: Path) -> None:
    os.mkfifo(path)


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "cannot be read: No such file or directory"),
    "folder": (Path.mkdir, "is not a regular file"),
    "pipe": (_fifo, "is not a regular file"),
    "empty": (lambda path: _written(path, " \n"), "is empty"),
    "oversize": (lambda path: _written(path, "x" * (MAX_BYTES + 1)), "is larger than 64 KiB"),
    "binary": (lambda path: _written(path, b"\xff\xfe" + SECRET.encode()), "is not UTF-8 text"),
    "two lines": (lambda path: _written(path, f"{SECRET}\n{SECRET}\n"), "has a line break"),
    "writable": (lambda path: _written(path).chmod(0o666), "can be written by every user"),
    "a link to nothing": (lambda path: path.symlink_to("gone"), "No such file or directory"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_file_stops_the_start_and_is_named(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the setting and the path; what the file holds is never shown."""
    make, said = UNUSABLE[kind]
    make(tmp_path / "token")
    monkeypatch.setenv("HEAL_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert f"HEAL_TOKEN_FILE: {tmp_path / 'token'}" in str(caught.value)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


@contextmanager
def _not_as_root() -> Iterator[None]:
    """Root may read every file."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_file_without_the_right_to_read_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a mount belongs to another user."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        _written(folder / "token").chmod(0)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HEAL_TOKEN_FILE", str(folder / "token"))
        with _not_as_root(), pytest.raises(ConfigurationError, match="cannot be read: Permission denied"):
            load_settings()
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("environment", "env_file", "shared"),
    [
        ({"HEAL_TOKEN": "x", "HEAL_TOKEN_FILE": "token"}, "", ""),
        ({"HEAL_TOKEN": "x"}, "HEAL_TOKEN_FILE=token", ""),
        ({}, "HEAL_TOKEN=x\nHEAL_TOKEN_FILE=token", ""),
        ({}, "", "heal_token: x\nheal_token_file: token"),
    ],
)
def test_a_secret_given_twice_stops_the_start(
    environment: dict[str, str], env_file: str, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Itself and as a file: which one is meant cannot be known."""
    _written(Path("token"))
    _written(Path(".env"), env_file)
    _written(Path("heal.yaml"), shared)
    for name, value in {"CONFIG_FILE": "heal.yaml", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="HEAL_TOKEN and HEAL_TOKEN_FILE are both set"):
        load_settings()


def test_the_configuration_file_names_secrets_by_their_files(
    heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment overrides it, and `heal config show` names the file and not the secret."""
    _written(tmp_path / "token")
    _written(tmp_path / "heal.yaml", "heal_token_file: token\nopa_token_file: gone\nopa_url: http://opa\n")
    monkeypatch.setenv("CONFIG_FILE", "heal.yaml")
    with pytest.raises(ConfigurationError, match="OPA_TOKEN_FILE: gone cannot be read"):
        load_settings()
    monkeypatch.setenv("OPA_TOKEN", "of the environment")
    settings = load_settings()
    assert settings.heal_token is not None
    assert settings.heal_token.get_secret_value() == SECRET
    answer = heal("config", "show", "_TOKEN", "-o", "json")
    assert SECRET not in answer.out
    sources = {one["name"]: one["source"] for one in json.loads(answer.out)}
    assert (sources["HEAL_TOKEN"], sources["OPA_TOKEN"]) == ("token", "environment")


@pytest.mark.parametrize(("name", "likely"), [("SLACK_BOT_TOKN_FILE", "SLACK_BOT_TOKEN_FILE")])
def test_a_mistyped_name_of_a_file_is_found(name: str, likely: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of any other setting."""
    monkeypatch.setenv(name, "token")
    with pytest.raises(ConfigurationError, match=f"did you mean {likely}"):
        load_settings()
