"""Which soaks run: at the size of a change a share of the intakes, and no requests from the document.

A test that is named on the command line always runs.
"""

from __future__ import annotations

import pytest

from tests import sizes

collect_ignore = [] if sizes.whole() else ["test_openapi_cases.py"]  # the fast tier tries some


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the soaks whose turn it is not."""
    soaks = [item for item in items if item.path.name == "test_soak.py"]
    taken = sizes.intakes(soaks)
    left_out = [item for item in soaks if item not in taken and not _named(config, item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _named(config: pytest.Config, item: pytest.Item) -> bool:
    """Whether someone asked for this very test."""
    return any(argument.endswith(f"test_soak.py::{item.name}") for argument in config.args)
