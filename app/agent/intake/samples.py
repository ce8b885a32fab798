"""The effect of a metric sample on its service: levels, breaches and their ends. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec import structs

from app.agent.freshness.reasons import Reason
from app.agent.freshness.reports import remember_condition, remember_level
from app.agent.intake.events import with_condition
from app.agent.intake.meaning import SignalMeaning
from app.agent.models import POLLED, Condition, MetricSample, Signal, SliSample, Trigger
from app.agent.ports.store.signals import ServiceLevels
from app.agent.slo import Breach, BreachLimits, SloThresholds
from app.durations import span

LONGEST_RHYTHM = timedelta(minutes=15)
"""Samples pushed further apart than this never make one breach, unless the breach is asked to last longer."""

WITHIN = "within the SLO"
"""Why a healthy sample opens and joins nothing."""


def judge_sample(
    slo: SloThresholds, signal: Signal, sample: MetricSample, levels: ServiceLevels
) -> SignalMeaning:
    healthy = judge_healthy(slo, signal, sample, levels)
    return judge_any_sample(slo, signal, sample, levels) if healthy is None else healthy


def judge_healthy(
    slo: SloThresholds, signal: Signal, sample: MetricSample, levels: ServiceLevels
) -> SignalMeaning | None:
    """What `judge_any_sample` finds in a sample within the SLO, of a service that has been well.

    Most samples are such, and it takes a fraction of the time. None for all others.
    """
    at = min(signal.observed_at, signal.received_at)
    last, errors, latency = levels.last_sample_at, sample.error_rate, sample.p95_latency_ms
    if (
        signal.source == POLLED
        or (last is not None and at < last)
        or sample.crash_looping
        or (errors is not None and errors > slo.max_error_rate)
        or (latency is not None and latency > slo.max_p95_latency_ms)
        or slo.too_few(sample.request_rate)
        or not has_been_well(levels)
    ):
        return None
    changed: dict[str, Any] = {}
    if errors is not None:
        changed["error_rate_clear_at"] = later(levels.error_rate_clear_at, at)
    if latency is not None:
        changed["latency_clear_at"] = later(levels.latency_clear_at, at)
    if sample.crash_looping is not None:
        changed["crash_told_at"] = later(levels.crash_told_at, at)
    after = structs.replace(
        levels,
        last_sample_at=at,
        last_sample=SliSample(at=at, error_rate=errors, p95_latency_ms=latency),
        rhythm_seconds=rhythm(last, at),
        **changed,
    )
    return SignalMeaning(healthy_reason=WITHIN, joins=False, levels=after)


def judge_any_sample(
    slo: SloThresholds, signal: Signal, sample: MetricSample, levels: ServiceLevels
) -> SignalMeaning:
    # A clock that runs ahead must not make every later sample count as late.
    at = min(signal.observed_at, signal.received_at)
    own = signal.source == POLLED
    last = levels.last_sample_at
    late = last is not None and at < last and not own
    if slo.too_few(sample.request_rate):
        return SignalMeaning(
            healthy_reason=f"{sample.request_rate:.2f} requests/s are too few to evaluate "
            f"(the minimum is {slo.min_request_rate:g} requests/s)",
            joins=False,
        )
    error, latency = _breaches(slo, sample, at, levels, own=own)
    crash_is_news = sample.crash_looping is not None and (
        levels.crash_told_at is None or at >= levels.crash_told_at
    )
    crashing = sample.crash_looping if crash_is_news else None
    triggers: list[Trigger] = []
    breaching: list[Trigger] = []
    unsustained: list[str] = []
    for value, threshold, breach, trigger in (
        (sample.error_rate, slo.max_error_rate, error, Trigger.HIGH_ERROR_RATE),
        (sample.p95_latency_ms, slo.max_p95_latency_ms, latency, Trigger.HIGH_LATENCY),
    ):
        if value is None or value <= threshold or not breach.includes(at):
            continue
        breaching.append(trigger)
        if breach.lasted >= slo.breach_for:
            triggers.append(trigger)
        else:
            unsustained.append(
                f"{trigger.replace('_', ' ')} for {span(breach.lasted)} of {span(slo.breach_for)}"
            )
    if crashing:
        triggers = [*breaching, Trigger.CRASH_LOOP]
    changed = _measured(slo, levels, sample, at, error, latency) if own else _posted(error, latency)
    if not late and not own:
        newest = SliSample(at=at, error_rate=sample.error_rate, p95_latency_ms=sample.p95_latency_ms)
        changed |= {"last_sample_at": at, "last_sample": newest, "rhythm_seconds": rhythm(last, at)}
    after = structs.replace(
        levels,
        **changed,
        conditions=with_condition(levels.conditions, Condition.CRASH_LOOP_BACK_OFF, crashing),
        crash_told_at=at if crash_is_news else levels.crash_told_at,
        reasons=_reasons(slo, signal, sample, levels.reasons, (error, latency)),
    )
    return SignalMeaning(
        triggers=tuple(triggers),
        breaching=tuple(breaching),
        unsustained=tuple(unsustained),
        healthy_reason=f"older than the newest sample ({last.isoformat()})"
        if late and last is not None
        else WITHIN,
        joins=bool(triggers or unsustained),
        levels=after,
    )


def _breaches(
    slo: SloThresholds, sample: MetricSample, at: datetime, levels: ServiceLevels, *, own: bool
) -> tuple[Breach, Breach]:
    """Error rate and latency after the sample; the agent's own and posted ones are two histories."""
    gap = slo.longest_gap if own else _gap(slo, levels)
    errors = levels.measured_error_rate if own else _error_rate(levels)
    latency = levels.measured_latency if own else _latency(levels)
    return (
        errors.with_value(sample.error_rate, at, _limits(slo, slo.max_error_rate, gap)),
        latency.with_value(sample.p95_latency_ms, at, _limits(slo, slo.max_p95_latency_ms, gap)),
    )


def _measured(
    slo: SloThresholds,
    levels: ServiceLevels,
    sample: MetricSample,
    at: datetime,
    errors: Breach,
    latency: Breach,
) -> dict[str, Any]:
    """The fields of the levels after a sample of the agent's own.

    One inside its objective also ends a breach that was posted.
    """
    gap = _gap(slo, levels)
    posted_errors, posted_latency = _error_rate(levels), _latency(levels)
    if errors.since is None:
        limits = _limits(slo, slo.max_error_rate, gap)
        posted_errors = posted_errors.with_value(sample.error_rate, at, limits)
    if latency.since is None:
        limits = _limits(slo, slo.max_p95_latency_ms, gap)
        posted_latency = posted_latency.with_value(sample.p95_latency_ms, at, limits)
    return {
        **_posted(posted_errors, posted_latency),
        "measured_error_rate": errors,
        "measured_latency": latency,
    }


def _reasons(
    slo: SloThresholds,
    signal: Signal,
    sample: MetricSample,
    known: tuple[Reason, ...],
    breaches: tuple[Breach, Breach],
) -> tuple[Reason, ...]:
    """The reasons that the sample reports or withdraws, by indicator."""
    at = min(signal.observed_at, signal.received_at)
    for trigger, value, objective, breach in (
        (Trigger.HIGH_ERROR_RATE, sample.error_rate, slo.max_error_rate, breaches[0]),
        (Trigger.HIGH_LATENCY, sample.p95_latency_ms, slo.max_p95_latency_ms, breaches[1]),
    ):
        if value is None:
            continue
        above = True if value > objective and breach.includes(at) else None
        well = value <= objective * slo.clear_ratio
        known = remember_level(known, signal, trigger, value, breach=False if well else above)
    if sample.crash_looping is None:
        return known
    condition = Condition.CRASH_LOOP_BACK_OFF
    return remember_condition(known, signal, condition, present=sample.crash_looping)


def _gap(slo: SloThresholds, levels: ServiceLevels) -> timedelta:
    """How far apart two samples of one breach may be: further where they come further apart."""
    if levels.rhythm_seconds is None:
        return slo.longest_gap
    return max(slo.longest_gap, 2 * timedelta(seconds=levels.rhythm_seconds))


def _limits(slo: SloThresholds, threshold: float, gap: timedelta) -> BreachLimits:
    return BreachLimits(threshold=threshold, clear_below=threshold * slo.clear_ratio, gap=gap)


def has_been_well(levels: ServiceLevels) -> bool:
    """The service has no recorded breach, condition or reason."""
    return (
        levels.error_rate_breach_since is None
        and levels.latency_breach_since is None
        and levels.error_rate_breach_until is None
        and levels.latency_breach_until is None
        and not levels.conditions
        and not levels.reasons
    )


def later(before: datetime | None, at: datetime) -> datetime:
    return at if before is None or at > before else before


def _posted(errors: Breach, latency: Breach) -> dict[str, Any]:
    """The fields of the levels for the breaches that posted samples amount to."""
    return {
        "error_rate_breach_since": errors.since,
        "error_rate_breach_until": errors.until,
        "error_rate_clear_at": errors.clear_at,
        "latency_breach_since": latency.since,
        "latency_breach_until": latency.until,
        "latency_clear_at": latency.clear_at,
    }


def _error_rate(levels: ServiceLevels) -> Breach:
    return _known(
        levels, levels.error_rate_breach_since, levels.error_rate_breach_until, levels.error_rate_clear_at
    )


def _latency(levels: ServiceLevels) -> Breach:
    return _known(levels, levels.latency_breach_since, levels.latency_breach_until, levels.latency_clear_at)


def _known(
    levels: ServiceLevels, since: datetime | None, until: datetime | None, clear_at: datetime | None
) -> Breach:
    if since is None:
        return Breach(clear_at=clear_at)
    # An older program remembers no end of a breach: it took every sample for one.
    return Breach(since=since, until=until or levels.last_sample_at or since, clear_at=clear_at)


def rhythm(last: datetime | None, at: datetime) -> float | None:
    """How far apart samples are pushed."""
    if last is None or at - last > LONGEST_RHYTHM:
        return None
    return (at - last).total_seconds() or None
