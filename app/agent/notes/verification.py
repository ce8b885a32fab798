"""How the service does after an action, and the verdict."""

from __future__ import annotations

from datetime import datetime

from app.agent.evidence.format import in_words
from app.agent.models import Note, Stage, Verdict, Verification
from app.agent.verification.assessment import Assessment
from app.agent.verification.verdict import dated_in_future


def verdict_note(verdict: Verdict) -> Note:
    """The verdict and its reasons."""
    return Note(
        at=verdict.at,
        stage=Stage.VERIFY,
        message=f"Verdict: {in_words(verdict.kind)}: {'; '.join(verdict.reasons)}.",
        data={"verdict": verdict.kind},
    )


def turning_points(before: Verification, after: Verification, health: Assessment, at: datetime) -> list[Note]:
    """A note for the first observation, for each change between healthy and not healthy, and for each change
    of what cannot be determined."""
    notes = [_restarted(before, at)] if dated_in_future(before, at) else []
    began = before.healthy_since is None and after.healthy_since is not None
    ended = before.healthy_since is not None and after.healthy_since is None
    waits = len(after.waited_for) > len(before.waited_for)
    if not (began or ended or waits or before.last_observed_at is None):
        return notes
    reasons = "; ".join(health.reasons)
    return [
        *notes,
        Note(
            at=at,
            stage=Stage.VERIFY,
            message=f"Service {health.health}: {reasons}.",
            data={"health": health.health},
        ),
    ]


def _restarted(before: Verification, at: datetime) -> Note:
    """Why a verification restarts."""
    return Note(
        at=at,
        stage=Stage.VERIFY,
        message=f"Verification restarted: its start {before.started_at:%Y-%m-%d %H:%M:%S} UTC or its "
        "last observation is in the future; the clock went back.",
        data={"started_at": before.started_at.isoformat()},
    )
