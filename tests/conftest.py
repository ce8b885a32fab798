"""Settings for every test: time limits do not depend on the speed of the machine."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from app import redaction
from tests import sizes
from tests.shared_policy import close_shared_policy

settings.register_profile(
    "any machine",
    deadline=None,
    max_examples=sizes.examples(100),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")

REAL_TIMEOUT_SECONDS = 1800
"""A test of the real tier that takes longer hangs; the slowest takes about two minutes."""
WHOLE_TIMEOUT_SECONDS = 4 * REAL_TIMEOUT_SECONDS
LONGEST = (
    "e2e/test_undo",
    "e2e/test_faults",
    "e2e/test_partition",
    "soak/test_soak",
    "e2e/test_upgrade.py",
    "simulation/test_seeds",
    "timeline/test_demo_testbed",
    "soak/test_rolling_restart",
    "tests/simulation/",
    "tests/e2e/",
)
"""Files of the real tier by how long they take: those begin first, so that no process waits for a long one
at the end."""


def pytest_report_header(config: pytest.Config) -> str | None:
    """The size and the turn of the real tier, so that a run can be repeated."""
    return sizes.described() if config.option.markexpr == "real" else None


def pytest_sessionfinish() -> None:
    """Stop what the stories of this process shared."""
    close_shared_policy()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give real tests their time-out, and let the longest files of them begin first."""
    items.sort(
        key=lambda item: next((n for n, part in enumerate(LONGEST) if part in item.nodeid), len(LONGEST))
    )
    timeout = WHOLE_TIMEOUT_SECONDS if sizes.whole() else REAL_TIMEOUT_SECONDS
    for item in items:
        if item.get_closest_marker("real") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(timeout))


@pytest.fixture(autouse=True)
def _secrets_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process never forgets a secret; the made-up ones of a test must not be looked for in the next one."""
    monkeypatch.setattr(redaction, "_known", set(redaction._known))
    monkeypatch.setattr(redaction, "_known_pattern", redaction._known_pattern)
