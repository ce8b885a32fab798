"""The OpenAPI page and its document say what the API really does."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.api.harness import Harness


def _document(api: Harness) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/openapi.json").json()
    return found


def test_the_page_loads_nothing_from_elsewhere(api: Harness) -> None:
    """Every file that the page names is served here."""
    page = api.get("/docs")
    assert page.status_code == 200
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(files) >= 4
    assert all(file.startswith("/") and not file.startswith("//") for file in files)
    assert all(api.get(file).status_code == 200 for file in files)


def test_every_operation_documents_its_problems(api: Harness) -> None:
    """The framework's own error form, which is never sent, is documented nowhere."""
    document = _document(api)
    assert "HTTPValidationError" not in json.dumps(document)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            refusals = {status: one for status, one in operation["responses"].items() if int(status) >= 400}
            assert refusals or path in {"/healthz", "/version"}
            assert all("application/problem+json" in one["content"] for one in refusals.values())


def test_every_reference_leads_somewhere(api: Harness) -> None:
    """Including those to models that the framework never saw."""
    document = _document(api)
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert names >= {"DeployEvent", "MetricEvent", "ProblemDocument", "IncidentView"}
    assert names <= set(document["components"]["schemas"])


@pytest.mark.parametrize("path", ["/events/deploy", "/events/metric"])
def test_the_examples_work(api: Harness, path: str) -> None:
    """What the page offers to try is accepted as it stands, alone and as a list."""
    content = _document(api)["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        assert api.post(path, json=example["value"]).status_code == 202
