"""Scenarios of the healing benchmark on a real control plane: the same files, the same right ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.sandbox.scenarios.files import Variant, load_scenarios
from testbed.scenarios.bench import SPEED, Played, control_plane, not_applicable, play_these
from testbed.scenarios.play import Stand
from tests.sizes import scenarios

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]

FOLDER = Path(__file__).parents[2] / "bench" / "healing"
OPEN: dict[str, str] = {
    "rotation-after-config-tweak": "its cause is in the logs, and containers there write none",
}
"""Scenarios that do not end on the control plane as they should yet, with the reason."""
AT_ONCE = 6


def playable() -> list[Variant]:
    """The first variant of each scenario that can be shown there."""
    found = load_scenarios(FOLDER, 1)
    return [one for one in found if one.scenario.id not in OPEN and not_applicable(one, SPEED) is None]


def batches() -> list[list[Variant]]:
    chosen = scenarios(playable())
    return [chosen[at : at + AT_ONCE] for at in range(0, len(chosen), AT_ONCE)]


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    """A control plane of its own: its admission and its tolerations follow the speed."""
    with control_plane(SPEED) as found:
        yield found


def described(one: Played) -> str:
    why = one.skipped if one.scored is None else one.scored.judgement.why
    return f"{one.variant.name}: {why}"


@pytest.mark.parametrize("chosen", batches(), ids=lambda batch: "+".join(one.scenario.id for one in batch))
def test_scenarios_end_rightly_on_the_control_plane(chosen: list[Variant], stand: Stand) -> None:
    """Side by side, each in a namespace with nodes of its own; wrong ends are named."""
    played = play_these(chosen, stand, processes=len(chosen))
    assert [described(one) for one in played if not one.right] == []
    assert all(one.scored is not None and one.scored.judgement.wrong_actions == 0 for one in played)


def test_at_least_forty_scenarios_can_be_shown() -> None:
    """What is left out has a reason."""
    assert len(playable()) >= 40
