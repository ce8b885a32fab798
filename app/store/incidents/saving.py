"""Saving the next version of an incident, in the transaction that changes it.

Three writers share an incident: intake (`app.store.signals.openings`), which adds triggers and freshness
when a signal joins; people (`app.store.responders`), who set the owner and similar fields; and the loop,
which owns everything else under its claim. Saving merges: triggers are the union in stored order, `stale`
holds only while both say so, `dry_run` never goes back from true to false, and a sender that reported stays
on record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, bindparam, update

from app.agent.ids import IncidentId
from app.agent.models import ApprovalState, Incident, IncidentState, Note, Trigger, VerdictKind
from app.agent.ports.store.claims import Claim
from app.errors import ClaimLost, Invalid
from app.store import claims, notifications, timeline
from app.store.database.rows import incident_columns
from app.store.database.tables import approvals, incidents
from app.store.notes import opening_summary

CHANGE = update(incidents).where(incidents.c.id == bindparam("incident"))
"""Sets columns of the incident that the parameter names."""


def save_next_version(
    connection: Connection, claim: Claim, incident: Incident, notes: Sequence[Note]
) -> Incident:
    """The incident's next version with its notes; ends the approvals of a state that it leaves."""
    stored = claims.hold(connection, claim)
    if incident.id != stored.id or incident.version != stored.version:
        raise ClaimLost(f"incident {stored.id} is now at version {stored.version}; reload it")
    saved = _store_next_version(connection, stored, incident)
    if stored.state is IncidentState.AWAITING_APPROVAL and saved.state is not stored.state:
        ended_at = max((note.at for note in notes), default=claim.expires_at)
        end_approvals(connection, saved.id, ended_at)
    timeline.append(connection, saved.id, notes)
    return saved


def end_approvals(connection: Connection, incident_id: IncidentId, at: datetime) -> None:
    """Pending or unused approvals of the incident become expired or void."""
    open_states = [ApprovalState.PENDING.value, ApprovalState.APPROVED.value]
    mine = approvals.c.incident_id == incident_id
    connection.execute(
        update(approvals)
        .where(mine, approvals.c.state == ApprovalState.PENDING.value, approvals.c.expires_at <= at)
        .values(state=ApprovalState.EXPIRED.value)
    )
    connection.execute(
        update(approvals)
        .where(mine, approvals.c.state.in_(open_states))
        .values(state=ApprovalState.VOID.value)
    )


def _says_recovered(given: Incident) -> bool:
    """Whether it ends with a recovery: an escalation may also have one, because of a change left in place."""
    verdict = given.verdict
    verified = verdict is not None and verdict.kind is VerdictKind.RECOVERED
    return given.state.is_recovery or (verified and given.state.closed)


def _store_next_version(connection: Connection, stored: Incident, given: Incident) -> Incident:
    """Replace `stored` by `given`, merged with what intake added; the caller holds the row and the claim."""
    if given.key != stored.key or given.opened_at != stored.opened_at:
        raise Invalid(f"incident {stored.id} cannot move to another service or time of opening")
    if given.state.closed != (given.closed_at is not None):
        raise Invalid(f"incident {stored.id} must have closed_at exactly when its state is an end")
    if _says_recovered(given) and given.joined != stored.joined:
        raise ClaimLost(f"a signal joined incident {stored.id} since it was loaded; reload it")
    merged = replace(
        given,
        joined=stored.joined,
        version=stored.version + 1,
        stale=stored.stale and given.stale,
        dry_run=stored.dry_run or given.dry_run,
        reported_by=tuple(dict.fromkeys((*stored.reported_by, *given.reported_by))),
        cluster=stored.cluster or given.cluster,
        # People own these fields: their changes since the incident was loaded stay.
        acknowledged=stored.acknowledged,
        owner=stored.owner,
        taken_over=stored.taken_over,
        resolved=stored.resolved,
    )
    merged = with_triggers(merged, union(stored.triggers, given.triggers))
    changed = {"version": merged.version, **incident_columns(merged)}
    connection.execute(CHANGE, {"incident": stored.id, **changed})
    notifications.look_again(connection, merged)
    return merged


def with_triggers(incident: Incident, triggers: tuple[Trigger, ...]) -> Incident:
    """The incident with these triggers; a summary that still only names the triggers names the new ones."""
    untouched = incident.summary == opening_summary(incident.key, incident.triggers)
    summary = opening_summary(incident.key, triggers) if untouched else incident.summary
    return replace(incident, triggers=triggers, summary=summary)


def union(first: Sequence[Trigger], then: Sequence[Trigger]) -> tuple[Trigger, ...]:
    """Each once, in the order in which they came."""
    return tuple(dict.fromkeys((*first, *then)))
