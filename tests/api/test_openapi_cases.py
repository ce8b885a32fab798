"""Every answer is one that the OpenAPI document allows, whatever is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.harness import Harness
from tests.api.openapi_cases import operations, run_cases, try_case

CASES = 300
"""`make soak` runs 20,000 others."""


def test_no_answer_breaks_the_document(tmp_path: Path) -> None:
    """No 5xx; status, content type, headers and body as documented, for sound and for broken requests."""
    run_cases(tmp_path, CASES, derandomize=True)


def test_an_answer_that_the_document_does_not_allow_is_found(api: Harness) -> None:
    """Of an operation without its 404, and of one whose field has another type."""
    document = api.app.openapi()
    del document["paths"]["/v1/incidents/{incident_id}"]["get"]["responses"]["404"]
    document["components"]["schemas"]["ServicePage"]["properties"]["items"] = {"type": "string"}
    found = {one.label: one for one in operations(document)}
    missing = found["GET /v1/incidents/{incident_id}"].Case(
        path_parameters={"incident_id": f"inc_{'0' * 32}"}
    )
    for case in (missing, found["GET /v1/services"].Case()):
        with pytest.raises(BaseException, match=r"(?i)undocumented|violates|not.*type|conform") as caught:
            try_case(api, case)
        assert "schemathesis" in type(caught.value).__module__
