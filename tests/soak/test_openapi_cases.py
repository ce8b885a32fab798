"""20,000 requests made from the OpenAPI document; a change runs 300 in the fast tier.

In parts of their own chance, so that `-n` runs several at once. OPENAPI_CASES sets another number.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.api.openapi_cases import run_cases

CASES = int(os.environ.get("OPENAPI_CASES", "20000"))
PARTS = 8

pytestmark = [pytest.mark.real, pytest.mark.timeout(7200)]


@pytest.mark.parametrize("part", range(PARTS))
def test_no_answer_breaks_the_document(tmp_path: Path, part: int) -> None:
    """No 5xx; status, content type, headers and body as documented, for sound and for broken requests."""
    run_cases(tmp_path, CASES // PARTS + (part < CASES % PARTS), derandomize=False)
