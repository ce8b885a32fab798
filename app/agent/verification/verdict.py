"""The verdict of a verification, from its course and the health now. Pure.

Without fresh data the verdict is "cannot tell" (promise 8).
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta

from app.agent.freshness.clock_jumps import ahead
from app.agent.models import (
    Observation,
    SliSample,
    Verdict,
    VerdictKind,
    Verification,
)
from app.agent.slo import SloThresholds
from app.agent.verification.assessment import Assessment, Health, acted, fresh_sample
from app.agent.verification.rules import VerifyRules
from app.durations import span

_WORSE_ERROR_RATE = 0.2
"""An error rate this much above the one before the action is materially worse."""

WAITS_NOTED = 8
"""So many changes of what cannot be determined are in the timeline of one verification: some alternate."""

_FIGURES = re.compile(r"[0-9][0-9.:]*")

_REASON_CHARS = 300


def judge(
    verification: Verification, now: Assessment, seen: Observation, rules: VerifyRules
) -> Verdict | None:
    """The verdict that follows from this observation, or None if it is too early for one."""
    at = seen.at
    if _unwatched(verification, at, rules):
        return _without_end(verification, at, rules)
    ended = _ended(verification, now, seen, rules)
    if ended is None:
        return None
    kind, reasons = ended
    return Verdict(kind=kind, reasons=reasons, at=at, intent_id=verification.intent_id)


def _ended(
    verification: Verification, now: Assessment, seen: Observation, rules: VerifyRules
) -> tuple[VerdictKind, tuple[str, ...]] | None:
    """The verdict of a verification without gaps, with its reasons; None if it is too early for one."""
    at = seen.at
    if now.health is Health.HEALTHY:
        since = verification.healthy_since
        if since is not None and at - since >= rules.soak:
            if seen.batch is not None:
                return VerdictKind.RECOVERED, now.reasons
            measured = "within the SLO" if seen.sli is not None else "no alert reported"
            soak = f"{measured} for {span(at - since)}"
            return VerdictKind.RECOVERED, (soak, *now.reasons)
    if now.final and now.health is Health.UNHEALTHY and acted(verification):
        return VerdictKind.NOT_RECOVERED, now.reasons
    elapsed = at - verification.started_at
    worse = _worse(verification.baseline, fresh_sample(seen, verification, rules), rules.slo)
    if now.health is Health.UNHEALTHY and elapsed >= rules.soak and worse:
        return VerdictKind.WORSE, now.reasons
    if elapsed < rules.timeout:
        return None
    if now.health is Health.UNHEALTHY:
        return VerdictKind.NOT_RECOVERED, now.reasons
    if now.health is Health.UNKNOWN:
        return VerdictKind.CANNOT_TELL, now.reasons
    # Healthy, but not yet for the whole soak: wait at most one soak longer.
    if elapsed < rules.timeout + rules.soak:
        return None
    never = "intermittent health: never healthy for the whole soak"
    return VerdictKind.NOT_RECOVERED, (never, *now.reasons)


def _without_end(verification: Verification, at: datetime, rules: VerifyRules) -> Verdict | None:
    """ "Cannot tell" once the attempts ended by gaps add up to `rules.longest`.

    A gap adds at most twice the longest allowed gap: a pause of hours restarts the verification and does
    not use up later attempts.
    """
    lost = _lost(verification, at, rules)
    if lost < rules.longest:
        return None
    return Verdict(
        kind=VerdictKind.CANNOT_TELL,
        reasons=(
            "the agent observed the service less often than every "
            f"{span(rules.longest_gap)}, so the verification kept restarting "
            f"for {span(lost)}",
        ),
        at=at,
        intent_id=verification.intent_id,
    )


def _lost(verification: Verification, at: datetime, rules: VerifyRules) -> timedelta:
    """The length of all attempts ended by gaps, including the one that ends at `at`.

    Each counts until its last observation, regardless of later clock changes.
    """
    seen = verification.last_observed_at or verification.started_at
    watched = max(seen - verification.started_at, timedelta(0))
    gap = at - seen if at >= seen else rules.longest_gap
    return timedelta(seconds=verification.lost_seconds) + watched + min(gap, 2 * rules.longest_gap)


def resumed(verification: Verification, at: datetime, rules: VerifyRules) -> Verification:
    """The verification at the time `at`: restarted after a gap.

    An absence of the agent is not evidence about the service.
    """
    if not _unwatched(verification, at, rules):
        return verification
    lost = _lost(verification, at, rules)
    return replace(verification, started_at=at, healthy_since=None, lost_seconds=lost.total_seconds())


def advance(verification: Verification, now: Assessment, at: datetime, rules: VerifyRules) -> Verification:
    """The verification after this observation: an unhealthy or unknown one restarts the soak.

    A gap between observations restarts the whole verification.
    """
    verification = resumed(verification, at, rules)
    if now.health is Health.HEALTHY:
        healthy_since = verification.healthy_since or at
        return replace(verification, healthy_since=healthy_since, last_observed_at=at, waited_for=())
    return replace(
        verification,
        waited_for=_waited_for(verification.waited_for, now),
        healthy_since=None,
        last_observed_at=at,
        last_unhealthy_at=at if now.health is Health.UNHEALTHY else verification.last_unhealthy_at,
    )


def _waited_for(before: tuple[str, ...], now: Assessment) -> tuple[str, ...]:
    """With what cannot be determined now, if that is another reason than the last; at most `WAITS_NOTED`."""
    if now.health is not Health.UNKNOWN or len(before) >= WAITS_NOTED:
        return before
    reason = _FIGURES.sub("", "; ".join(now.reasons))[:_REASON_CHARS]
    return before if before[-1:] == (reason,) else (*before, reason)


def dated_in_future(verification: Verification, at: datetime) -> bool:
    """Whether any of its times is in the future because the clock went back; it would never end."""
    moments = (verification.started_at, verification.healthy_since, verification.last_observed_at)
    return any(ahead(moment, at) for moment in moments)


def _unwatched(verification: Verification, at: datetime, rules: VerifyRules) -> bool:
    """Whether the last observation is too old, or in the future: the time between is unknown."""
    if dated_in_future(verification, at):
        return True
    return at - (verification.last_observed_at or verification.started_at) > rules.longest_gap


def _worse(before: SliSample | None, now: SliSample | None, slo: SloThresholds) -> bool:
    before = slo.judged(before) if before is not None else None
    if before is None or now is None or before.error_rate is None or now.error_rate is None:
        return False
    return now.error_rate - before.error_rate >= _WORSE_ERROR_RATE
