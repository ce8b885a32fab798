"""`heal bench healing DIR --cluster`: variants side by side on one control plane, each in a process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

from rich.table import Table

from app.agent.guardrails.workload_kinds import DEPLOYMENT
from app.agent.ids import JsonObject
from app.sandbox.scenarios.document import DeletePodEvent
from app.sandbox.scenarios.files import Variant, load_scenarios
from app.sandbox.scenarios.judge import Run, Scored, judge
from testbed import rbac
from testbed.controlplane import ControlPlane
from testbed.scenarios.play import Stand, least_seconds, play, shortened

SPEED = 10.0
"""How many seconds of a scenario pass in one of the machine's."""
MOST_SECONDS = 180.0
"""A scenario whose events, or hidden fault, take longer in the machine's time is left out."""
_TOLERATED_SECONDS = 300.0
"""How long pods stay bound to a node that is lost, as on any cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One variant on the control plane."""

    scored: Scored | None
    variant: Variant
    skipped: str | None = None
    """Why it cannot be shown there."""
    seconds: float = 0.0
    """How long it took."""
    again: bool = False
    """It ended wrongly at first, and was played once more."""

    @property
    def right(self) -> bool:
        return self.scored is not None and self.scored.judgement.right


def not_applicable(variant: Variant, speed: float) -> str | None:
    """Why a scenario cannot be shown on the control plane; None where it can."""
    seconds = least_seconds(shortened(variant)) / speed
    if seconds > MOST_SECONDS:
        return f"it takes {seconds:.0f} s, and at most {MOST_SECONDS:.0f} s are played"
    others = sorted({one.kind for one in variant.scenario.topology.services} - {DEPLOYMENT})
    if others:
        return f"only Deployments are played, and it has a {' and a '.join(others)}"
    if any(isinstance(event, DeletePodEvent) for event in variant.events):
        return "a person deletes a pod in it, which is played in the simulated world only"
    return None


@contextmanager
def control_plane(speed: float) -> Iterator[Stand]:
    """A control plane for scenarios at a speed; everything of it ends with the context."""
    tolerated = max(1, round(_TOLERATED_SECONDS / speed))
    flags = (
        "--enable-admission-plugins=PodNodeSelector",
        f"--default-not-ready-toleration-seconds={tolerated}",
        f"--default-unreachable-toleration-seconds={tolerated}",
    )
    plane = ControlPlane(without=("horizontal-pod-autoscaler-controller",), apiserver_flags=flags)
    with plane:
        yield Stand(admin=plane.kubeconfig(rbac.ADMIN), agent=plane.kubeconfig(rbac.AGENT), speed=speed)


def play_all(folder: Path, *, variants: int, processes: int, speed: float) -> tuple[Played, ...]:
    """Play the first variants of every file; raises `ConfigurationError` for an invalid file.

    Raises `TestbedError` where the control plane cannot be started.
    """
    chosen = load_scenarios(folder, variants)
    with control_plane(speed) as stand:
        return play_these(chosen, stand, processes=processes)


def play_these(variants: Sequence[Variant], stand: Stand, *, processes: int) -> tuple[Played, ...]:
    """Play some variants, so many at the same time, in the order in which they were given.

    What ended wrongly is played once more, alone and at half the speed: on a busy machine
    the agent is late, because time passes faster there than it can work.
    """
    fresh = get_context("spawn")
    slower = replace(stand, speed=stand.speed / 2)
    with ProcessPoolExecutor(min(processes, max(1, len(variants))), mp_context=fresh) as pool:
        first = list(pool.map(_played, variants, [stand] * len(variants)))
        return tuple(
            one
            if one.right or one.scored is None
            else replace(pool.submit(_played, one.variant, slower).result(), again=True)
            for one in first
        )


def _played(variant: Variant, stand: Stand) -> Played:
    skipped = not_applicable(variant, stand.speed)
    if skipped is not None:
        return Played(scored=None, variant=variant, skipped=skipped)
    start = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
    run, seconds = play(variant, stand, start)
    return Played(scored=_scored(variant, run), variant=variant, seconds=seconds)


def _scored(variant: Variant, run: Run) -> Scored:
    """Beside itself: harm and times are compared with a twin in the simulated world alone."""
    scenario = variant.scenario
    return Scored(
        scenario=scenario.id,
        variant=variant.number,
        family=scenario.family,
        control=scenario.control,
        run=run,
        judgement=judge(scenario, variant.fault_at, run, run),
    )


def as_json(played: Sequence[Played]) -> str:
    """How many ended rightly, and each run."""
    shown = [one for one in played if one.scored is not None]
    whole: JsonObject = {
        "played": len(shown),
        "right_ends": sum(one.right for one in shown),
        "not_applicable": len(played) - len(shown),
        "per_scenario": [_entry(one) for one in played],
    }
    return json.dumps(whole, indent=2)


def _entry(one: Played) -> JsonObject:
    if one.scored is None:
        return {"scenario": one.variant.name, "not_applicable": one.skipped}
    run, verdict = one.scored.run, one.scored.judgement
    return {
        "scenario": one.variant.name,
        "family": one.scored.family,
        "right": verdict.right,
        "why": verdict.why,
        "actions": [act.words + (" (undo)" if act.undo else "") for act in run.acts],
        "escalated": list(run.pages),
        "causes": list(run.causes),
        "recovered": run.recovered,
        "played_seconds": round(run.horizon),
        "seconds": round(one.seconds, 1),
        "played_again": one.again,
    }


def report(played: Sequence[Played]) -> Table:
    """Each scenario by name with its end."""
    right = sum(one.right for one in played)
    shown = sum(one.scored is not None for one in played)
    title = f"On the control plane: {right} of {shown} ended rightly"
    table = Table(title=title, title_justify="left")
    for name in ("scenario", "end", "why", "actions", "seconds"):
        table.add_column(name)
    for one in played:
        if one.scored is None:
            table.add_row(one.variant.name, "not applicable", one.skipped or "", "", "")
            continue
        run, verdict = one.scored.run, one.scored.judgement
        acts = ", ".join(act.words + (" (undo)" if act.undo else "") for act in run.acts)
        end = ("right" if verdict.right else "wrong") + (", played again" if one.again else "")
        table.add_row(one.variant.name, end, verdict.why, acts, f"{one.seconds:.0f}")
    return table
