"""The agent's own silences over a real Alertmanager."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.contract.silence_suite import *  # noqa: F403 - the suite
from tests.contract.silence_suite import Monitoring
from tests.contract.test_silences_alertmanager import PROGRAM, alertmanager

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="Alertmanager is not installed"),
]


@pytest.fixture
def monitoring(tmp_path: Path) -> Iterator[Monitoring]:
    with alertmanager(tmp_path) as url:
        yield Monitoring(url=url, now=lambda: datetime.now(UTC), receiver="none")
