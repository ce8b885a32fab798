"""`heal runbooks simulate`: what runbooks and policies do to simulated faults."""

from __future__ import annotations

from pathlib import Path

from app.agent.evidence.format import in_words
from app.benchmarks.sandbox_run import Ended, play
from app.cli.commands.errors import CommandFailed
from app.cli.commands.output import printable
from app.config import Settings
from app.sandbox.scenarios.files import Variant, load_scenarios
from app.sandbox.scenarios.playground import offered
from app.simulation.sandbox import sandbox_settings
from app.testing import VirtualClock


def scenarios(settings: Settings, wanted: list[str]) -> list[Variant]:
    """The scenarios of these names or files; all on offer without any. Raises `CommandFailed`."""
    known = {one.scenario.id: one for one in offered(settings.sandbox_scenarios)}
    found = []
    for name in wanted or list(known):
        if name in known:
            found.append(known[name])
        elif Path(name).is_file():
            found += load_scenarios(Path(name), 1)
        else:
            raise CommandFailed(
                f"{name!r} is neither a scenario nor a file; the sandbox offers {', '.join(known)}"
            )
    return found


async def simulate(settings: Settings, variants: list[Variant]) -> list[Ended]:
    """Play scenarios on virtual time; a person answers as each file says."""
    return await play(sandbox_settings(settings), variants, VirtualClock)


def verdict(ended: Ended) -> str:
    """How a run ended, in one line."""
    acts = [
        f"{'undo of ' if i.undoes else ''}{in_words(i.action.name)} of {record.incident.key.service}"
        for record in ended.records
        for i in record.intents
        if i.outcome is not None
    ]
    states = ", ".join(f"{r.incident.key.service} {in_words(r.incident.state)}" for r in ended.records)
    right = "as its file says" if ended.judgement.right else f"not as its file says: {ended.judgement.why}"
    did = ", ".join(acts) or "no action"
    return printable(f"{ended.variant.scenario.id}: {did}; {states or 'no incident'}. It ended {right}.")
