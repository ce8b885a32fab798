"""Every answer of an API server, and every missing one, has one meaning for the caller."""

from __future__ import annotations

from datetime import timedelta

import httpx2
import pytest
from lightkube.core.exceptions import ConfigError

from app.agent.ids import JsonObject
from app.connectors.kubernetes.errors import (
    Expired,
    KubernetesCall,
    failure,
    rejection,
    status_of,
)
from app.errors import (
    AgentError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    PermanentError,
    TransientError,
    UnknownOutcome,
)

READ = KubernetesCall(verb="get", what="deployments payments/shop", effect=False)
WRITE = KubernetesCall(verb="patch", what="deployments payments/shop", effect=True)


@pytest.mark.parametrize(
    ("code", "read", "write"),
    [
        (301, PermanentError, PermanentError),
        (400, Invalid, Invalid),
        (401, Forbidden, Forbidden),
        (403, Forbidden, Forbidden),
        (404, NotFound, NotFound),
        (405, Invalid, Invalid),
        (408, TransientError, UnknownOutcome),
        (409, Conflict, Conflict),
        (410, Expired, Expired),
        (413, Invalid, Invalid),
        (415, Invalid, Invalid),
        (422, Invalid, Invalid),
        (429, TransientError, TransientError),
        (500, TransientError, UnknownOutcome),
        (502, TransientError, UnknownOutcome),
        (503, TransientError, UnknownOutcome),
        (504, TransientError, UnknownOutcome),
    ],
)
def test_a_status_has_one_meaning(code: int, read: type[AgentError], write: type[AgentError]) -> None:
    """Where a write may have happened in spite of the status, no message claims that it did not."""
    assert type(rejection(READ, code, {}, {})) is read
    assert type(rejection(WRITE, code, {}, {})) is write


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    ("headers", "status", "seconds"),
    [
        ({"Retry-After": "7"}, {}, 7),
        ({}, {"details": {"retryAfterSeconds": 5}}, 5),
        ({"Retry-After": "99999999"}, {}, 600),
    ],
)
def test_a_server_that_says_when_to_come_back_did_nothing(
    code: int, headers: dict[str, str], status: JsonObject, seconds: int
) -> None:
    """With Retry-After the request was turned away at the door, a write too."""
    error = rejection(WRITE, code, headers, status)
    assert type(error) is TransientError
    assert error.retry_after == timedelta(seconds=seconds)


@pytest.mark.parametrize("written", ["soon", "-3", "", "٣", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_an_unreadable_retry_after_is_none(written: str) -> None:
    """No wait is invented."""
    error = rejection(READ, 429, {"Retry-After": written}, {})
    assert isinstance(error, TransientError)
    assert error.retry_after is None


def test_a_patch_for_another_uid_is_a_conflict() -> None:
    """The object of that name is another one: it moved on."""
    status: JsonObject = {"details": {"causes": [{"field": "metadata.uid"}]}}
    assert type(rejection(WRITE, 422, {}, status)) is Conflict
    assert type(rejection(WRITE, 400, {}, status)) is Invalid


def test_forbidden_names_verb_and_object() -> None:
    """What the reviewer must grant stands in the message."""
    assert "patch deployments payments/shop" in str(rejection(WRITE, 403, {}, {"message": "RBAC"}))


@pytest.mark.parametrize(
    ("error", "write"),
    [
        (httpx2.ConnectError("refused"), TransientError),
        (httpx2.ConnectTimeout("slow"), TransientError),
        (httpx2.PoolTimeout("busy"), TransientError),
        (ConfigError("no token"), TransientError),
        (httpx2.ReadTimeout("silence"), UnknownOutcome),
        (httpx2.WriteTimeout("stuck"), UnknownOutcome),
        (httpx2.ReadError("reset"), UnknownOutcome),
        (httpx2.WriteError("reset"), UnknownOutcome),
        (httpx2.RemoteProtocolError("closed"), UnknownOutcome),
        (TimeoutError(), UnknownOutcome),
        (ValueError("garbage"), UnknownOutcome),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_without_an_answer_only_what_was_never_sent_is_safe_to_repeat(
    error: Exception, write: type[AgentError]
) -> None:
    """Promise 2 rests on this line between not sent and not answered."""
    assert type(failure(WRITE, error)) is write
    assert type(failure(READ, error)) is TransientError


def test_what_a_credential_plugin_printed_is_not_passed_on() -> None:
    """Secrets never enter an error's text."""
    assert "s3cr3t" not in str(failure(READ, ConfigError("exec failed: s3cr3t")))


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"[1]", b"null", b"\xff\xfe"])
def test_an_answer_that_is_no_status_is_an_empty_one(body: bytes) -> None:
    """Gateways answer HTML."""
    assert status_of(body) == {}


def test_a_long_message_is_cut() -> None:
    """A server that echoes what it was sent does not fill the timeline."""
    assert len(str(rejection(READ, 422, {}, {"message": "x" * 10_000}))) < 600
