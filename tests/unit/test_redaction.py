"""Credentials never stand in what is kept or shown; other sentences stay as they are."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app import redaction
from app.config import Settings
from app.connectors.http import HttpPeer
from app.connectors.kubernetes.errors import KubernetesCall, failure, rejection
from app.connectors.text import shorten
from app.errors import AgentError, TransientError
from app.logs import Redacting
from app.redaction import HIDDEN, redacted, redacted_values, remember
from tests.unit.loopback import loopback, reply

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZ2VudCJ9.c2lnbmF0dXJl"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret that another test registered."""
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setattr(redaction, "_known_pattern", None)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("401: Authorization: Bearer abc123def456", "abc123def456"),
        ("invalid token Bearer abc123def456 sent", "abc123def456"),
        ("got Basic dXNlcjpwYXNzd29yZA== from you", "dXNlcjpwYXNzd29yZA"),
        ("cannot reach https://ann:hunter2@db.example/x", "hunter2"),
        ("cannot reach https://t0ken@db.example/x", "t0ken"),
        ("dial postgresql://heal:hunter2@db:5432/heal: refused", "hunter2"),
        ("dial redis://:hunter2@cache:6379/0", "hunter2"),
        (f"the token {JWT} has expired", JWT.split(".")[1]),
        (f"key {AWS} is not allowed", AWS),
        ("aws_secret_access_key=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI"),
        ("env DB_PASSWORD=hunter2 is set", "hunter2"),
        ("password: hunter2", "hunter2"),
        ('{"password": "hunter two", "user": "ann"}', "hunter two"),
        ("{'client_secret': 'hunter two'}", "hunter two"),
        ("apiKey=hunter2&x=1", "hunter2"),
        ("token=0123456789abcdef0123", "0123456789abcdef"),
        ("X-Api-Key: hunter2 is wrong", "hunter2"),
        ("Cookie: session=hunter2; other=1", "hunter2"),
        (f"got {KEY} in the file", "MIIEow"),
        ("cut off -----BEGIN PRIVATE KEY-----\nMIIEow", "MIIEow"),
        ("xoxb-123456789012-abcdefghij is not valid", "xoxb-123456789012"),
        ("ghp_" + "a1" * 18, "a1a1a1"),
        ("heal_tok_0011223344556677_" + "ab12" * 12, "ab12ab12"),
        ("post https://hooks.slack.com/services/T0/B0/hunter2 failed", "hunter2"),
        ("see https://grafana.example/d/x?auth_token=hunter2&from=1", "hunter2"),
        ("dial postgresql://heal:hun/ter2#x@db:5432/heal: refused", "ter2"),
        ("Server=db;User Id=sa;Pwd=hunter2;Encrypt=true", "hunter2"),
        ("AccountName=x;AccountKey=hunter2==;Suffix=core", "hunter2"),
        ("env DB_PASS=hunter2 is set", "hunter2"),
        ("auth: ann/Swordfish was refused", "Swordfish"),
        ("redis_auth=ann:Swordfish", "Swordfish"),
        ("creds: ann/Swordfish/2", "Swordfish"),
        ("run mysql --password hunter2 -h db", "hunter2"),
        ("key sk-ant-api03-" + "a1" * 12, "a1a1a1"),
        ("npm_" + "a1" * 18, "a1a1a1"),
        ("dckr_pat_" + "a1" * 12, "a1a1a1"),
        ("pypi-" + "a1" * 20, "a1a1a1"),
        ("hf_" + "a1" * 17, "a1a1a1"),
        ("SG." + "a1" * 11 + "." + "b2" * 20, "b2b2b2"),
        ("hvs." + "a1" * 12, "a1a1a1"),
    ],
)
def test_what_is_shaped_like_a_credential_is_taken_out(text: str, secret: str) -> None:
    """In errors, in what connectors repeat, and by itself."""
    assert secret in text
    assert secret not in redacted(text)
    assert secret not in shorten(text)
    assert secret not in str(TransientError(text))
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "error rate 13.0%, p95 latency 1450 ms, crash looping (high error rate)",
        'secrets "db-password" is forbidden: User "agent" cannot get resource "secrets"',
        'password authentication failed for user "heal"',
        "the bearer token for PROMETHEUS_URL is empty or has characters no header may carry",
        "Bearer authentication failed",
        "Basic authentication required",
        "set REQUIRE_IDENTITY=true and create a token with `heal token create`",
        "ALERTMANAGER_TOKEN is not set; MAX_ACTIONS_PER_INCIDENT=2 taken",
        "the object's token: u/3",
        "token: expired",
        "Deployment payments/payments-api at commit 0123456789abcdef0123456789abcdef01234567",
        "rollback to sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "see https://heal.example.com/dashboard/incidents/inc_1",
        "see http://prom.example:9090/graph and ask ann@example.com",
        "bypass=true, pass: 2 of 3, risk-free task-force-number-one-of-many",
        "mail to ann@example.com at 10:00",
        "audit anchor 12: digest 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08, sealed",
        "the image has the digest sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_ordinary_sentences_stay_as_they_are(text: str) -> None:
    """They name tokens, passwords and secrets without being one."""
    assert redacted(text) == text


def test_addresses_keep_where_and_lose_who_and_what() -> None:
    """User information and query go; scheme, host and path stay."""
    assert redacted("GET https://ann:x@prom.example:9090/api/v1/query?query=up#top gave 500") == (
        "GET https://prom.example:9090/api/v1/query gave 500"
    )
    assert redacted("kafka://u:p@one:9092/topic") == "kafka://one:9092/topic"


@given(st.text(max_size=400))
def test_text_of_any_kind_is_survived(text: str) -> None:
    """And redacting twice changes nothing more."""
    once = redacted(text)
    assert redacted(once) == once


def test_long_hostile_text_takes_no_time() -> None:
    """No pattern goes back and forth over its input."""
    for piece in ("password", "a.b-c_", "://", "@", "eyJ.", "token=", "-----BEGIN "):
        redacted(piece * 5_000)


# ------------------------------------------------------------------ secrets of the settings


def test_every_secret_of_the_settings_is_known(tmp_path: Path) -> None:
    """Also within addresses and JSON settings, and as it is meant where it is written encoded."""
    settings = Settings(
        _env_file=None,
        database_url=SecretStr("postgresql://heal:plain-horse-1@db/heal"),
        prometheus_url="http://ann:plain-horse-2@prom:9090",
        opa_token=SecretStr("plain-horse-3"),
        kafka_properties={"sasl.password": SecretStr("plain-horse-4")},
        intake_from=(SecretStr("redis://:plain%2Dhorse%2D5@cache/0?stream=x"),),
        audit_anchor_dir=tmp_path,
        audit_anchor_key=SecretStr("plain-horse-6-" + "x" * 32),
    )
    found = settings.secret_values()
    for number in range(1, 7):
        assert any(value.startswith(f"plain-horse-{number}") for value in found), number
    remember(found)
    for number in range(1, 6):
        assert redacted(f"it said plain-horse-{number} twice: plain-horse-{number}") == (
            f"it said {HIDDEN} twice: {HIDDEN}"
        )


def test_an_address_without_a_password_is_no_secret() -> None:
    """DATABASE_URL is named in messages; the address of a webhook is a secret as a whole."""
    assert Settings(_env_file=None).secret_values() == frozenset()
    webhook = SecretStr("https://chat.example/hooks/abc")
    assert webhook.get_secret_value() in Settings(_env_file=None, teams_webhook_url=webhook).secret_values()


def test_short_secrets_are_taken_out_where_they_stand_alone() -> None:
    """Within words they are ordinary letters, and very short ones are not looked for."""
    remember(["payments", "heal"])
    assert redacted("payments is wrong, heal said") == f"{HIDDEN} is wrong, heal said"
    assert redacted("prepayments2 failed") == "prepayments2 failed"


# ------------------------------------------------------------------ where it is kept and shown


async def test_an_upstream_that_echoes_the_token_is_not_repeated() -> None:
    """The error names what was answered, without the credential that was sent."""
    async with loopback(reply(500, {"error": "bad token plain-horse-battery for ann"})) as server:
        peer = HttpPeer(
            name="the policy engine",
            setting="OPA_URL",
            url=server.url,
            timeout_seconds=30,
            bearer_token=SecretStr("plain-horse-battery"),
        )
        answer = await peer.send("GET", "/x")
        await peer.aclose()
    refusal = str(peer.refusal(answer))
    assert "bad token [redacted] for ann" in refusal


def test_the_api_server_s_words_are_redacted_before_they_are_cut() -> None:
    """A credential at the cut is not left by half."""
    call = KubernetesCall(verb="patch", what="deployments a/b", effect=True)
    words = "x" * 380 + " password=" + "hunter2" * 20
    assert "hunter" not in str(rejection(call, 500, {}, {"message": words}))
    assert "hunter" not in str(failure(call, RuntimeError(words)))


def test_log_lines_and_tracebacks_are_redacted() -> None:
    """Whichever library logs."""
    formatter = Redacting(logging.Formatter("%(levelname)s %(message)s"))
    error = ValueError("password=hunter2")
    record = logging.LogRecord(
        "x", logging.ERROR, __file__, 1, "failed: %s", ("Bearer abc123def456",), (ValueError, error, None)
    )
    line = formatter.format(record)
    assert "hunter2" not in line
    assert "abc123def456" not in line
    assert "ERROR failed: Bearer [redacted]" in line


def test_values_within_json_are_redacted_and_keys_kept() -> None:
    """Texts at any depth; numbers and null stay."""
    assert redacted_values({"a": ["password=hunter2", 1, None], "b": {"c": "x"}}) == {
        "a": [f"password={HIDDEN}", 1, None],
        "b": {"c": "x"},
    }


def test_every_error_of_the_agent_is_redacted() -> None:
    """By the class, so that no place can forget it."""
    pending = [AgentError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if kind.__module__.startswith("app.errors"):
            assert "hunter2" not in str(kind("https://a:hunter2@b/"))


def test_json_stays_json() -> None:
    """A redacted answer of an upstream can still be read by people and programs."""
    said = json.dumps({"token": "0123456789abcdef0123", "secret": "hunter2", "ok": True})
    assert json.loads(redacted(said))["ok"] is True
