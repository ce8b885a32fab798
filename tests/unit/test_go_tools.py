"""Programs of the test bed that are built from their Go modules."""

from __future__ import annotations

import re

import pytest

from testbed.flux import CONTROLLERS
from testbed.go_tool import GoTool
from testbed.helm import HELM
from testbed.kustomize import KUSTOMIZE
from testbed.notifications import NOTIFICATIONS
from testbed.opa import OPA


@pytest.mark.parametrize(
    "tool", [*CONTROLLERS, HELM, KUSTOMIZE, NOTIFICATIONS, OPA], ids=lambda tool: tool.name
)
def test_the_version_of_a_program_is_that_of_its_module_file(tool: GoTool) -> None:
    """Whether the file requires the module on a line of its own or in a list."""
    assert re.fullmatch(r"v\d+\.\d+\.\d+\S*", tool.version())
