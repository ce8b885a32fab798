"""Fixtures that several modules of the quick tests share."""

from __future__ import annotations

from tests.unit.heal_command import heal as heal
