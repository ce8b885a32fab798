"""One application for each test; its store is a real SQLite file in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.harness import Harness, harness, make_settings


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Harness]:
    with harness(make_settings(tmp_path)) as one:
        yield one
