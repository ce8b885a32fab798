"""Requests that schemathesis makes from the OpenAPI document, and what is expected of every answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.harness import Harness, harness, make_settings
from tests.api.stories import awaiting

Operation: TypeAlias = schemathesis.APIOperation[Any, Any, Any, Any]
Case: TypeAlias = schemathesis.Case[Any]

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_ENDLESS = "text/event-stream"
_KNOWN = ("incident_id", "approval_id")
"""Parameters of the path for which a record is there."""


def operations(document: dict[str, Any]) -> list[Operation]:
    """Every operation of the document but those whose answer does not end."""
    schema = schemathesis.openapi.from_dict(document)
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    return [one for one in found if _ENDLESS not in str(one.definition.raw["responses"])]


def cases(of: list[Operation], known: dict[str, str]) -> st.SearchStrategy[Case]:
    """Cases that follow the document and cases that break it, half of them about a record that is there."""

    @st.composite
    def case(draw: st.DrawFn) -> Case:
        operation = draw(st.sampled_from(of))
        mode = draw(st.sampled_from(list(schemathesis.GenerationMode))) if _breakable(operation) else None
        made: Case = draw(operation.as_strategy(generation_mode=mode or schemathesis.GenerationMode.POSITIVE))
        for name in _KNOWN:
            if name in (made.path_parameters or {}) and draw(st.booleans()):
                made.path_parameters[name] = known[name]
        return made

    return case()


def _breakable(operation: Operation) -> bool:
    """Whether there is anything in a request that could break the document."""
    return bool(list(operation.iter_parameters())) or bool(operation.body)


def try_case(api: Harness, case: Case) -> None:
    """Send it; raises for a 5xx, and for an answer that the document does not allow."""
    sent = case.as_transport_kwargs(base_url="http://127.0.0.1:8000")
    headers = {name: value for name, value in sent.pop("headers", {}).items() if name != "User-Agent"}
    kept = {name: sent[name] for name in ("params", "cookies") if sent.get(name)}
    if "json" in sent:
        kept["json"] = sent["json"]
    data = sent.get("data")
    if data is not None:
        kept["data" if isinstance(data, dict) else "content"] = data
    url = str(sent["url"]).removeprefix("http://127.0.0.1:8000")
    response = api.request(case.method, url, headers=headers, **kept)
    case.validate_response(response, checks=CHECKS)


def run_cases(folder: Path, number: int, *, derandomize: bool) -> None:
    """That many cases over one application, which keeps what they leave behind."""
    with harness(make_settings(folder)) as api:
        approval_id = api.run(awaiting(api.container))
        known = {"approval_id": approval_id, "incident_id": approval_id.replace("apr_", "inc_")}
        made = cases(operations(api.app.openapi()), known)

        @settings(
            max_examples=number,
            deadline=None,
            derandomize=derandomize,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=made)
        def every_answer_is_allowed(case: Case) -> None:
            try_case(api, case)

        every_answer_is_allowed()
