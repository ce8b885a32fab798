"""The bounded memory of the reports on one service. Pure, called by `reports`."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from app.agent.freshness.reasons import (
    ALERT_WORDS,
    MergedAlerts,
    Reason,
    ReasonKind,
    Trace,
    Withdrawal,
    alert_identity,
    alert_name,
    alert_subject,
    find,
)
from app.agent.models import Alert, Trigger

REASONS_KEPT = 32
"""The number of reasons stored for one service; more only if more alerts fire at the same time."""

ALERTS_KEPT = 64
"""The number of possibly firing alerts stored in full for one service. Beyond it the oldest are merged:
into one entry for each trigger and cluster, which is not a reason for an action."""

MERGED_KEPT = 512
"""How many merged alerts that may still fire, and how many that were resolved, are kept for each
trigger. Of more that may fire only their number is kept."""

FORGOTTEN_AFTER = timedelta(days=1)
"""An alert neither repeated nor resolved for this time does not prevent a recovery: its end was lost."""

UNKNOWN_FOR = timedelta(hours=1)
"""Alerts of which only the number is kept keep no incident from recovering for longer."""

CLUSTERS_KEPT = 3
"""The number of clusters of one trigger whose alerts are merged separately; others count for all."""

_MERGED = "alerts merged "
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def stored(known: tuple[Reason, ...], reason: Reason) -> tuple[Reason, ...]:
    """Add this reason; if there are too many, drop the least needed.

    Withdrawn reasons go first, then alerts whose end was lost, then posted samples. An alert that may still
    fire is never dropped, only merged, and the resolution of a resolved alert stays recorded.
    """
    kept = [one for one in known if one.subject != reason.subject]
    at, dropped = reason.newest, list[Reason]()
    while len(kept) >= REASONS_KEPT:
        least = min(kept, key=lambda one: (_need(one, at), one.last_true_at))
        if _need(least, at) is _Need.STANDS:
            break
        kept.remove(least)
        if least.kind is ReasonKind.ALERT and least.withdrawn is not None and not least.withdrawn.muted:
            dropped.append(least)
    after = (*kept, reason)
    for one in dropped:
        after = _in_short(after, one, at)
    return _merged(after, at)


def opened_by(known: tuple[Reason, ...], alert: Alert | None) -> tuple[Reason, ...]:
    """With this alert as the opener of the newest incident of the service; None: no alert opened it."""
    subject = None if alert is None else alert_subject(alert)
    return tuple(
        one if one.opened is (one.subject == subject) else replace(one, opened=one.subject == subject)
        for one in known
    )


class _Need(IntEnum):
    """How much a reason is needed: the lowest is dropped first."""

    WITHDRAWN = 0
    FORGOTTEN = 1
    SAMPLE = 2
    STANDS = 3


def _need(reason: Reason, at: datetime) -> _Need:
    if is_merged(reason):
        return _Need.FORGOTTEN if at - reason.last_true_at > FORGOTTEN_AFTER else _Need.STANDS
    if reason.withdrawn is not None and not reason.withdrawn.muted:
        return _Need.WITHDRAWN
    if at - reason.last_true_at > FORGOTTEN_AFTER:
        return _Need.FORGOTTEN
    return _Need.SAMPLE if reason.kind is ReasonKind.SAMPLE else _Need.STANDS


def _merged(known: tuple[Reason, ...], at: datetime) -> tuple[Reason, ...]:
    """Merge the oldest alerts that may fire, beyond `ALERTS_KEPT`."""
    alerts = sorted(
        (one for one in known if may_fire(one) and not is_merged(one) and not one.opened),
        key=lambda one: one.last_true_at,
    )
    for one in alerts[: -ALERTS_KEPT or None]:
        known = _in_short(tuple(each for each in known if each is not one), one, at)
    return known


# ---------------------------------------------------------------- alerts in short


def is_merged(reason: Reason) -> bool:
    """Whether this entry represents merged alerts."""
    return reason.subject.startswith(_MERGED)


def merged_alerts(reason: Reason) -> MergedAlerts | None:
    """The alerts that the entry represents; older versions stored only that some exist."""
    if reason.merged is None and is_merged(reason):
        return MergedAlerts(beyond=1, beyond_at=reason.last_true_at)
    return reason.merged


def newly_merged(
    before: tuple[Reason, ...], after: tuple[Reason, ...], since: datetime
) -> frozenset[Trigger]:
    """The triggers whose alerts were merged for the first time since then."""
    known = {one.trigger for one in before if _merged_since(one, since)}
    return frozenset(one.trigger for one in after if _merged_since(one, since)) - known


def _merged_since(reason: Reason, since: datetime) -> bool:
    return (
        reason.merged is not None and reason.merged.began_at is not None and reason.merged.began_at >= since
    )


def recalled(known: tuple[Reason, ...], alert: Alert) -> tuple[tuple[Reason, ...], Reason | None]:
    """The record of this alert with this start, removed from the merged alerts if it is among them."""
    subject = alert_subject(alert)
    found = find(known, subject)
    if found is not None:
        return known, found
    digest = _digest(subject)
    for entry in known:
        merged = merged_alerts(entry)
        traces = () if merged is None else (*merged.firing, *merged.over)
        trace = next((one for one in traces if one[0].endswith(digest)), None)
        if merged is None or trace is None:
            continue
        left = replace(
            merged,
            firing=tuple(one for one in merged.firing if one is not trace),
            over=tuple(one for one in merged.over if one is not trace),
            suppressed=tuple(one for one in merged.suppressed if one != trace[0]),
        )
        without = tuple(_entry(entry, left) if one is entry else one for one in known)
        return without, _in_full(trace, alert, entry, suppressed=trace[0] in merged.suppressed)
    return known, None


def ended_in_short(known: tuple[Reason, ...], alert: Alert, source: str, at: datetime) -> tuple[Reason, ...]:
    """With the merged firings of this alert ended that were last reported before this one began."""
    digest, subject, began = (
        _digest(alert.fingerprint.lower()),
        _digest(alert_subject(alert)),
        alert.starts_at,
    )
    for entry in known:
        merged = merged_alerts(entry)
        past = [
            one
            for one in (() if merged is None or entry.source != source else merged.firing)
            if one[0] != subject and one[0] == digest + one[0][-len(subject) :] and one[1] < _micros(began)
        ]
        if merged is None or not past:
            continue
        ended = [(one[0], one[1], _micros(at), 0) for one in past]
        left = replace(
            merged,
            firing=tuple(one for one in merged.firing if one not in past),
            over=(*merged.over, *ended)[-MERGED_KEPT:],
            suppressed=tuple(one for one in merged.suppressed if one not in {each[0] for each in past}),
        )
        known = tuple(_entry(entry, left) if one is entry else one for one in known)
    return known


def one_less_unknown(known: tuple[Reason, ...], trigger: Trigger, cluster: str) -> tuple[Reason, ...]:
    """After a report of an alert that is not remembered one by one: it was among those beyond the bound."""
    entries = [find(known, _merged_subject(trigger, name)) for name in dict.fromkeys((cluster, ""))]
    entry = next((one for one in entries if one is not None and _beyond(one)), None)
    merged = None if entry is None else merged_alerts(entry)
    if entry is None or merged is None:
        return known
    beyond = merged.beyond - 1
    left = replace(merged, beyond=beyond, beyond_at=merged.beyond_at if beyond else None)
    return tuple(_entry(entry, left) if one is entry else one for one in known)


def _merged_subject(trigger: Trigger, cluster: str) -> str:
    return f"{_MERGED}{trigger}" + (f" {cluster}" if cluster else "")


def _beyond(entry: Reason) -> int:
    merged = merged_alerts(entry)
    return 0 if merged is None else merged.beyond


def _merged_cluster(known: tuple[Reason, ...], one: Reason) -> str:
    """The cluster by which this alert is merged; empty where there are too many."""
    others = {each.cluster for each in known if is_merged(each) and each.trigger is one.trigger} - {""}
    return one.cluster if one.cluster in others or len(others) < CLUSTERS_KEPT else ""


def _vacated(known: tuple[Reason, ...], one: Reason, at: datetime) -> tuple[Reason, ...]:
    """With a place for the cluster of this alert, if all alerts of another cluster have ended.

    The resolved alerts stay recorded, among those of any cluster.
    """
    if not one.cluster or _merged_cluster(known, one) == one.cluster:
        return known
    idle = [
        each
        for each in known
        if each.cluster and each.trigger is one.trigger and _over(merged_alerts(each), at)
    ]
    if not idle:
        return known
    left = min(idle, key=lambda each: each.last_true_at)
    subject = _merged_subject(one.trigger, "")
    common = find(known, subject) or replace(left, subject=subject, cluster="", merged=MergedAlerts())
    merged, ended = merged_alerts(common) or MergedAlerts(), merged_alerts(left) or MergedAlerts()
    both = sorted((*merged.over, *ended.over), key=lambda trace: trace[2])[-MERGED_KEPT:]
    newest = max(common.last_true_at, left.last_true_at)
    entry = _entry(replace(common, last_true_at=newest), replace(merged, over=tuple(both)))
    return (*(each for each in known if each is not left and each.subject != subject), entry)


def _over(merged: MergedAlerts | None, at: datetime) -> bool:
    """Whether this entry of merged alerts no longer prevents a recovery."""
    if merged is None or still_firing(merged, at)[0]:
        return False
    return not merged.beyond or merged.beyond_at is None or at - merged.beyond_at > UNKNOWN_FOR


def _common(merged: MergedAlerts, one: Reason) -> tuple[tuple[str, str], ...] | None:
    """The labels that the alert has in common with those merged before it."""
    own = one.labels if one.labels is not None else (("alertname", alert_name(one)),)
    if not merged.firing and not merged.beyond:
        return own
    if merged.labels is None:
        return None
    return tuple(label for label in merged.labels if label in own)


def _in_short(known: tuple[Reason, ...], one: Reason, at: datetime) -> tuple[Reason, ...]:
    """Add this alert to the merged entry of its trigger and cluster."""
    known = _vacated(known, one, at)
    cluster = _merged_cluster(known, one)
    subject = _merged_subject(one.trigger, cluster)
    before = find(known, subject)
    merged = (merged_alerts(before) if before is not None else None) or MergedAlerts()
    ended = one.withdrawn.at if one.withdrawn is not None and not one.withdrawn.muted else None
    digest = _digest(alert_identity(one).rpartition("@")[0]) + _digest(one.subject)
    trace = (digest, _micros(one.last_true_at), _micros(ended), _micros(one.repeated_at))
    if ended is not None:
        merged = replace(merged, over=(*merged.over, trace)[-MERGED_KEPT:])
    else:
        common = _common(merged, one)
        muted = (trace[0],) if one.withdrawn is not None else ()
        merged = replace(
            merged,
            firing=(*merged.firing, trace),
            began_at=at,
            labels=common,
            suppressed=(*merged.suppressed, *muted),
        )
        merged = _bounded(merged, at)
    template = before or Reason(
        trigger=one.trigger,
        kind=ReasonKind.ALERT,
        subject=subject,
        source=one.source,
        said="",
        last_true_at=one.newest,
        cluster=cluster,
    )
    newest = max(template.last_true_at, one.newest)
    entry = _entry(replace(template, last_true_at=newest), merged)
    return (*(each for each in known if each.subject != subject), entry)


def _bounded(merged: MergedAlerts, at: datetime) -> MergedAlerts:
    """Without the alerts whose end was lost, and with a number of the oldest beyond the bound."""
    if len(merged.firing) <= MERGED_KEPT:
        return merged
    forgotten = _micros(at - FORGOTTEN_AFTER)
    ordered = sorted((one for one in merged.firing if one[1] >= forgotten), key=lambda one: one[1])
    cut = max(0, len(ordered) - MERGED_KEPT)
    kept = {one[0] for one in ordered[cut:]}
    merged = replace(merged, suppressed=tuple(one for one in merged.suppressed if one in kept))
    if not cut:
        return replace(merged, firing=tuple(ordered))
    last = _EPOCH + ordered[cut - 1][1] * _MICROSECOND
    before = merged.beyond if merged.beyond_at is None or at - merged.beyond_at <= UNKNOWN_FOR else 0
    return replace(
        merged,
        firing=tuple(ordered[cut:]),
        beyond=before + cut,
        beyond_at=last if merged.beyond_at is None else max(last, merged.beyond_at),
    )


def _entry(template: Reason, merged: MergedAlerts) -> Reason:
    """The entry that represents these alerts: withdrawn as a reason, and muted while one of them may fire."""
    beside = f"alerts older than the newest {ALERTS_KEPT} of the service"
    state = "do not justify an action, last reported" if merged.firing else "were reported as resolved,"
    over = Withdrawal(
        at=template.last_true_at, by="the agent", said=f"{beside} {state}", muted=bool(merged.firing)
    )
    return replace(template, said=beside, withdrawn=over, merged=merged)


def _in_full(trace: Trace, alert: Alert, entry: Reason, *, suppressed: bool) -> Reason:
    """The alert as stored before it was merged, with the labels of its new report."""
    _, fired, ended, repeated = trace
    said = ALERT_WORDS + alert.name
    over = Withdrawal(
        at=_EPOCH + (ended or fired) * _MICROSECOND,
        by=entry.source,
        said=f"{said} was reported as {'suppressed' if suppressed else 'resolved'}",
        muted=suppressed,
    )
    return Reason(
        trigger=entry.trigger,
        kind=ReasonKind.ALERT,
        subject=alert_subject(alert),
        source=entry.source,
        said=said,
        last_true_at=_EPOCH + fired * _MICROSECOND,
        withdrawn=over if ended or suppressed else None,
        cluster=alert.cluster,
        repeated_at=_EPOCH + repeated * _MICROSECOND if repeated else None,
        labels=alert.labels,
    )


def _digest(subject: str) -> str:
    """48 bits in eight characters: two of a thousand alerts have the same once in half a billion services."""
    return urlsafe_b64encode(
        hashlib.blake2b(subject.encode("utf-8", "replace"), digest_size=6).digest()
    ).decode()


def _micros(at: datetime | None) -> int:
    return 0 if at is None else (at - _EPOCH) // _MICROSECOND


def still_firing(merged: MergedAlerts, now: datetime) -> tuple[int, datetime]:
    """The number of merged alerts that may fire at that time, and the time of the last report."""
    recent = _recent(merged, now)
    return len(recent), _EPOCH + max((one[1] for one in recent), default=0) * _MICROSECOND


def all_suppressed(merged: MergedAlerts | None, now: datetime) -> bool:
    """Whether each merged alert that may fire at that time was reported as suppressed."""
    if merged is None:
        return False
    recent, muted = _recent(merged, now), set(merged.suppressed)
    return bool(recent) and all(one[0] in muted for one in recent)


def _recent(merged: MergedAlerts, now: datetime) -> list[Trace]:
    return [one for one in merged.firing if one[1] >= _micros(now - FORGOTTEN_AFTER)]


def may_fire(reason: Reason) -> bool:
    """An alert that was not reported as resolved; muted ones are among them."""
    return reason.kind is ReasonKind.ALERT and (reason.withdrawn is None or reason.withdrawn.muted)
