"""Numbers in queries and paths are bounded: one that no database can keep is a 422, never a 500."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.harness import Harness, assert_problem

HUGE = (2**31, 2**63, 2**64, 10**30, -(2**63) - 1, -(10**30), int("9" * 4000))


def parameters(api: Harness) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and parameter of everything in the OpenAPI document that is given in a query or a path."""
    for path, methods in api.app.openapi()["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] in ("query", "path"):
                    yield method.upper(), path, parameter


def kinds(parameter: dict[str, Any]) -> list[dict[str, Any]]:
    schema = parameter["schema"]
    return [schema, *schema.get("anyOf", ())]


def test_every_number_has_both_bounds(api: Harness) -> None:
    """In the OpenAPI document, where every later parameter is found too."""
    numbers = [
        (path, parameter["name"], kind)
        for _, path, parameter in parameters(api)
        for kind in kinds(parameter)
        if kind.get("type") in ("integer", "number")
    ]
    assert len(numbers) >= 4
    for path, name, kind in numbers:
        assert {"minimum", "ge", "exclusiveMinimum"} & set(kind), (path, name)
        assert {"maximum", "le", "exclusiveMaximum"} & set(kind), (path, name)


def test_a_number_out_of_bounds_is_a_422_and_nothing_is_a_500(api: Harness) -> None:
    """Every parameter is sent numbers beyond what a database keeps, and more digits than Python reads."""
    for method, path, parameter in parameters(api):
        number = any(kind.get("type") in ("integer", "number") for kind in kinds(parameter))
        for value in (*(str(each) for each in HUGE), "9" * 5000, "1e400", "-0x1"):
            if parameter["in"] == "path":
                answer = api.request(method, path.replace(f"{{{parameter['name']}}}", value))
            else:
                answer = api.request(method, path, params={parameter["name"]: value})
            assert answer.status_code < 500, (method, path, parameter["name"], value[:40])
            if number:
                assert_problem(answer, 422)


PROBED = {"/healthz", "/readyz", "/version", "/metrics"}
"""Probes and scrapers may send parameters of their own."""


def test_an_unknown_parameter_is_a_422(api: Harness) -> None:
    """On every address that is read, but for probes and scrapes: none is passed over in silence."""
    places = {
        "incident_id": "inc_" + "0" * 32,
        "approval_id": "apr_" + "0" * 32,
        "signal_id": "sig_" + "0" * 32,
        "environment": "prod",
        "service": "shop",
    }
    found = [
        path.format(**places)
        for path, methods in api.app.openapi()["paths"].items()
        if "get" in methods and path not in PROBED and not path.startswith("/sandbox")
    ]
    assert len(found) >= 20
    for path in found:
        assert_problem(api.get(path, params={"no_such_parameter": "1"}), 422)


@pytest.mark.parametrize("name", ["limit", "cursor", "since"])
def test_the_dashboard_shows_what_is_wrong(api: Harness, name: str) -> None:
    """Its query is not in the document, and is the same."""
    assert api.get(f"/dashboard?{name}={10**30}").status_code == 422
