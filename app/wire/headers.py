"""Headers of the API's answers that clients read."""

from __future__ import annotations

SANDBOX_HEADER = "Heal-Sandbox"
"""On every answer of the sandbox, with the value `simulated-cluster`."""
