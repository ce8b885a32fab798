"""Which scenarios of the healing benchmark the rules were developed with, and which were held out.

A held-out group is written and played before anyone looks at its results. That first
score is kept beside the files and never written again: only it says how the agent does
on faults that nothing was adjusted to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from app.errors import ConfigurationError
from app.sandbox.scenarios.judge import Scored

FIRST_SCORES = "first-scores.json"
"""The file in a folder of scenarios that holds the first score of each held-out group."""

DEVELOPED = "developed with"


class FirstScore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the agent ended a held-out group the first time."""

    scenarios: int
    right_ends: int
    wrong_actions: int
    control_actions: int
    harm_seconds: float


def read_first_scores(folder: Path) -> dict[str, FirstScore]:
    """The first scores that a folder holds; none without the file. Raises `ConfigurationError`."""
    file = folder / FIRST_SCORES
    if not file.is_file():
        return {}
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, FirstScore])
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{file}: no first scores of held-out groups: {error}") from error


def groups(runs: Sequence[Scored]) -> Mapping[str, list[Scored]]:
    """The runs that the rules were developed with, and those of each held-out group."""
    found: dict[str, list[Scored]] = {}
    for run in sorted(runs, key=lambda run: run.held_out or ""):
        found.setdefault(run.held_out or DEVELOPED, []).append(run)
    return found
