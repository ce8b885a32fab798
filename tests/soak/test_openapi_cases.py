"""20,000 requests made from the OpenAPI document; a change runs 300 in the fast tier."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.openapi_cases import run_cases

CASES = 20_000

pytestmark = [pytest.mark.real, pytest.mark.timeout(7200)]


def test_no_answer_breaks_the_document(tmp_path: Path) -> None:
    """No 5xx; status, content type, headers and body as documented, for sound and for broken requests."""
    run_cases(tmp_path, CASES, derandomize=False)
