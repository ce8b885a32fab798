"""Problem documents (RFC 9457): the format of every error response of the API.

Routers raise `Problem`. `install` registers handlers that answer `Problem`, the
framework's own errors and the agent's errors in this format. A document names the
field, the value and the fix, and contains nothing internal.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.agent.ids import JsonObject
from app.errors import (
    AgentError,
    ClaimLost,
    Forbidden,
    Invalid,
    NotEntitled,
    NotFound,
    PartlyRecorded,
    PermanentError,
    TransientError,
    UnknownOutcome,
)
from app.wire.field_errors import FieldError as FieldError
from app.wire.field_errors import field_errors as field_errors
from app.wire.field_errors import in_words
from app.wire.field_errors import shown as shown

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
_TYPE_PREFIX = "urn:self-healing-devops-agent:problem:"
_MAX_FIELD_ERRORS = 100
_DEFAULT_RETRY_SECONDS = 1


@dataclass(kw_only=True, eq=False)
class Problem(Exception):
    """An error response. Not frozen: Python writes the traceback into it."""

    status: int
    kind: str
    """Last part of the `type` URN; clients may switch on it."""
    title: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, instance: str) -> Response:
        """Encode; ASCII only and without infinities, so that no value can break it."""
        document: JsonObject = {
            "type": _TYPE_PREFIX + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
        }
        if self.errors:
            document["errors"] = [error.as_json() for error in self.errors[:_MAX_FIELD_ERRORS]]
        return Response(
            json.dumps(document, allow_nan=False),
            status_code=self.status,
            headers=dict(self.headers),
            media_type=PROBLEM_JSON,
        )


def invalid(errors: Sequence[FieldError], detail: str | None = None) -> Problem:
    """A well-formed request with invalid content: 422."""
    if detail is None:
        detail = in_words(errors)
    return Problem(
        status=422,
        kind="invalid-content",
        title="The request content is invalid",
        detail=detail,
        errors=errors,
    )


def problem_of(error: AgentError) -> Problem:
    """Map an error of the agent to HTTP; no other code does."""
    if isinstance(error, TransientError):
        wait = error.retry_after.total_seconds() if error.retry_after else _DEFAULT_RETRY_SECONDS
        return Problem(
            status=503,
            kind="try-again",
            title="Temporarily unavailable",
            detail=f"{error}. {_state_after(error)}",
            headers={"Retry-After": str(max(1, math.ceil(wait)))},
        )
    if isinstance(error, ClaimLost):
        return Problem(
            status=409,
            kind="claim-lost",
            title="Another worker holds this incident",
            detail=f"{error}. Check the incident, or retry the request.",
            headers={"Retry-After": str(_DEFAULT_RETRY_SECONDS)},
        )
    if isinstance(error, NotEntitled):
        return Problem(
            status=403, kind="not-entitled", title="Not permitted for this person", detail=str(error)
        )
    if isinstance(error, NotFound):
        return Problem(status=404, kind="not-found", title="Not found", detail=str(error))
    if isinstance(error, Invalid):
        return Problem(
            status=422,
            kind="invalid-content",
            title="The request content is invalid",
            detail=str(error),
        )
    if isinstance(error, Forbidden):
        return Problem(
            status=502,
            kind="agent-lacks-right",
            title="The agent lacks a permission",
            detail=f"{error}. Grant the agent this permission; the caller's permissions are not the cause.",
        )
    if isinstance(error, PermanentError | UnknownOutcome):
        return Problem(
            status=502,
            kind="upstream-refused",
            title="A dependency of the agent refused the request or did not respond",
            detail=str(error),
        )
    return _internal(error)


def _state_after(error: TransientError) -> str:
    """The recorded state, and the next step of the client."""
    if not isinstance(error, PartlyRecorded):
        return "Nothing was recorded or changed. Retry the same request."
    return (
        f"{error.recorded} of {error.total} entries of this delivery were recorded. Retry the same request: "
        "recorded entries are recognised as duplicates, and the others are recorded."
    )


def _internal(error: Exception) -> Problem:
    reference = secrets.token_hex(6)
    log.error("request failed, reference %s", reference, exc_info=error)
    return Problem(
        status=500,
        kind="internal",
        title="Internal error",
        detail=f"The agent failed; the request is not the cause. Reference in the agent log: {reference}.",
    )


def _from_http(error: HTTPException) -> Problem:
    phrase = HTTPStatus(error.status_code).phrase
    detail = error.detail
    if error.status_code == 404 and detail == phrase:
        detail = "No resource exists at this path. GET /docs lists the API."
    elif error.status_code == 405:
        allowed = _allowed(error)
        detail = f"This path does not support the method. Allowed: {allowed or 'another method'}."
    return Problem(
        status=error.status_code,
        kind=phrase.lower().replace(" ", "-").replace("'", ""),
        title=phrase,
        detail=detail,
        headers={**(error.headers or {}), **({"Allow": _allowed(error)} if error.status_code == 405 else {})},
    )


def _allowed(error: HTTPException) -> str:
    """The methods that a path supports; `HEAD` wherever it supports `GET`."""
    methods = [name.strip() for name in (error.headers or {}).get("Allow", "").split(",") if name.strip()]
    if "GET" in methods and "HEAD" not in methods:
        methods.insert(methods.index("GET") + 1, "HEAD")
    return ", ".join(methods)


def install(app: FastAPI) -> None:
    """Register handlers that answer every error as a problem document."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, error: Problem) -> Response:
        return error.response(request.url.path)

    @app.exception_handler(RequestValidationError)
    async def on_parameters(request: Request, error: RequestValidationError) -> Response:
        errors = [{**item, "loc": tuple(item["loc"])[1:]} for item in error.errors()]
        return invalid(field_errors(errors)).response(request.url.path)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        return _from_http(error).response(request.url.path)

    @app.exception_handler(AgentError)
    async def on_agent_error(request: Request, error: AgentError) -> Response:
        return problem_of(error).response(request.url.path)

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(request: Request, _: ClientDisconnect) -> Response:
        return Problem(
            status=400,
            kind="incomplete",
            title="The request body is incomplete",
            detail="The client closed the connection before the end of the body. Nothing was recorded.",
        ).response(request.url.path)

    @app.exception_handler(Exception)
    async def on_anything(request: Request, error: Exception) -> Response:
        return _internal(error).response(request.url.path)
