"""The parts of the OpenAPI document that FastAPI cannot derive: raw bodies and problem documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.connectors.alerts.delivery import AlertFormat
from app.connectors.registry import ALERT_FORMATS
from app.schemas import (
    AnswerRequest,
    BrakeRequest,
    CircuitRequest,
    ProblemDocument,
)
from app.wire.events import DeployEvent, MetricEvent
from app.wire.identity import TokenRequest
from app.wire.responders import ActRequest, AssignRequest, NoteRequest, ResolveRequest, UndoActRequest

Fragment: TypeAlias = dict[str, Any]  # Any: the shape is OpenAPI's, and the framework's own type says Any

_SCHEMAS = "#/components/schemas/"
_PROBLEM = {"application/problem+json": {"schema": {"$ref": f"{_SCHEMAS}{ProblemDocument.__name__}"}}}
_WHY = {
    400: "The body is not valid JSON",
    401: "The bearer token is missing or wrong",
    403: "Cross-site request, or missing scope",
    404: "Not found",
    409: "Another worker holds the incident",
    413: "The body is larger than MAX_BODY_BYTES",
    415: "The body is not `application/json` in UTF-8, or is compressed",
    422: "Invalid content; `errors` names field, value and fix",
    429: "Too many wrong credentials from this address; `Retry-After` gives the end of the lockout",
    502: "A dependency of the agent refused the request",
    503: "Temporarily unavailable; `Retry-After` gives the time to retry",
}
_MODELS = (
    DeployEvent,
    MetricEvent,
    AnswerRequest,
    BrakeRequest,
    CircuitRequest,
    TokenRequest,
    ActRequest,
    AssignRequest,
    NoteRequest,
    ResolveRequest,
    UndoActRequest,
    ProblemDocument,
)
_EXAMPLES: dict[str, Fragment] = {
    "deploy": {
        "service": "payments-api",
        "environment": "prod",
        "version": "1.15.0",
        "commit_sha": "d1e2f3a",
        "status": "failed",
        "timestamp": "2026-02-20T17:00:00Z",
    },
    "metric": {
        "service": "payments-api",
        "environment": "prod",
        "error_rate": 0.13,
        "p95_latency_ms": 1450,
        "crash_looping": True,
        "timestamp": "2026-02-20T17:01:00Z",
    },
}


def problems(*statuses: int, conflict: str | None = None) -> dict[int | str, Fragment]:
    """The `responses` of a route: a problem document for each status; `conflict` is what 409 means."""
    why = {**_WHY, 409: conflict or _WHY[409]}
    return {status: {"description": why[status], "content": _PROBLEM} for status in statuses}


def json_body(model: type[BaseModel]) -> Fragment:
    """One JSON object; the body is decoded by `app.api.bodies`, not by the framework."""
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{model.__name__}"}}},
        }
    }


def event_body(model: type[BaseModel], example: str) -> Fragment:
    """One event or a list of them; the body is decoded by `app.api.bodies`, not by the framework."""
    one = {"$ref": f"{_SCHEMAS}{model.__name__}"}
    several = {"type": "array", "items": one, "minItems": 1, "maxItems": 1000}
    body = _EXAMPLES[example]
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": [one, several]},
                    "examples": {
                        "one": {"summary": "One event", "value": body},
                        "list": {"summary": "A list; accepted or rejected as a whole", "value": [body]},
                    },
                }
            },
        }
    }


def event_headers() -> Fragment:
    """The headers that event routes read from the raw request."""
    return {
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "A request with a key of the last 24 hours and the same content gets the "
                "first response again; nothing is recorded.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
            }
        ]
    }


def delivery_body(alert_format: AlertFormat) -> Fragment:
    """A delivery of that format, as far as it is read."""
    security: list[dict[str, list[str]]] = [{"token": []}]
    if alert_format.token is not None:
        security.insert(0, {alert_format.name: []})
    return {
        "requestBody": {
            "required": True,
            "description": alert_format.payload,
            "content": {"application/json": {"schema": alert_format.schema}},
        },
        "security": security,
    }


def chat_body(title: str, media_types: Sequence[str]) -> Fragment:
    """A chat's own forms, signed by the chat."""
    content = {"schema": {"type": "object"}}
    return {
        "requestBody": {
            "required": True,
            "description": f"The unchanged payload of {title}.",
            "content": dict.fromkeys(media_types, content),
        }
    }


def _without_unsent_errors(schema: Fragment) -> None:
    """Remove the error model of FastAPI: `app.api.problems` replaces it."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422", "")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def install(app: FastAPI) -> None:
    """Serve the document of FastAPI, with the models that it does not know."""

    def document() -> Fragment:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
            )
            _, definitions = models_json_schema(
                [(model, "validation") for model in _MODELS],
                ref_template=_SCHEMAS + "{model}",
            )
            components = schema.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            for name, definition in definitions["$defs"].items():
                schemas.setdefault(name, definition)
            _without_unsent_errors(schema)
            components.setdefault("securitySchemes", {}).update(
                {
                    one.name: {
                        "type": "http",
                        "scheme": "bearer",
                        "description": f"{one.token.setting}, valid for deliveries of {one.title} only.",
                    }
                    for one in ALERT_FORMATS
                    if one.token is not None
                }
            )
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
