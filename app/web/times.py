"""Moments as pages write them before the viewer's script converts them to the local zone. Pure."""

from __future__ import annotations

from datetime import datetime


def stamp(moment: datetime) -> str:
    """`2026-02-20 17:00:00 UTC`."""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
