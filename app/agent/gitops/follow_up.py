"""After a rollback that helped: the revert in Git, the sync policy, the proof that no drift is left.

Called by the loop while an incident verifies, once per look. The service has recovered;
the incident stays open until the repository asks for what runs, because until then the
agent holds automated sync off. It never writes to the branch that the application
follows: a person merges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.agent.closing import Closer
from app.agent.gitops.application import Application, ApplicationRef
from app.agent.gitops.execution import GitOpsExecution
from app.agent.gitops.steps import (
    GIT_REVISION,
    LEFT_REVISION,
    MAX_ATTEMPTS,
    GitOpsStep,
    Progress,
    application_of,
    followed_up,
    progress,
    short,
    step_note,
    text_of,
)
from app.agent.ids import JsonObject
from app.agent.models import (
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    Note,
    Stage,
    Verdict,
    VerdictKind,
)
from app.agent.ports.gitops import GitOps, RevertRequest
from app.agent.ports.people import Notifier
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.verification.assessment import Health
from app.agent.verifier import Verifier
from app.clock import Clock
from app.errors import AgentError, PermanentError, TransientError, UnknownOutcome

_DRIFT: JsonObject = {"drift": True}
"""Recorded where drift ends a proof; it begins again when the states match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """Brings repository, sync policy and live state together again."""

    store: Store
    clock: Clock
    verifier: Verifier
    closer: Closer
    notifier: Notifier | None
    gitops: GitOps | None
    execution: GitOpsExecution | None
    timeout: timedelta
    """How long the repository may take to ask for what runs; then the incident is escalated."""

    async def advance(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """Take the next step, or wait for the next look; an outage outside is waited for as a merge is."""
        try:
            await self._advance(record, claim, now)
        except (TransientError, UnknownOutcome) as error:
            fresh, verdict = await self.store.incidents.get(record.incident.id), record.incident.verdict
            if fresh is None or verdict is None or now - verdict.at > self.timeout:
                raise
            known = bool(fresh.timeline) and "follow_up_error" in fresh.timeline[-1].data
            data: JsonObject = {"follow_up_error": str(error)}
            note = Note(at=now, stage=Stage.EXECUTE, message=f"Waiting: {error}.", data=data)
            await self._rest(claim, fresh.incident, *([] if known else [note]))

    async def _advance(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        intent = followed_up(record)
        ref = application_of(intent.action) if intent is not None else None
        if intent is None or ref is None or self.gitops is None or self.execution is None:
            raise PermanentError("the GitOps controller of the rollback is not connected now")
        seen = progress(record, intent.id)
        if await self._unhealthy(record, intent, claim, now):
            return
        if GitOpsStep.REVERT not in seen.done:
            await self._revert(record, intent, claim, seen, ref)
            return
        application = await self.gitops.reader.application(ref, refresh=True)
        ready = application.matches_repository and application.desired != text_of(
            intent.action, LEFT_REVISION
        )
        if not ready:
            await self._wait(record, intent, claim, application, seen)
        elif seen.policy is not None and GitOpsStep.RESTORE not in seen.done:
            await self.execution.restore(record, intent, claim, seen.policy, seen)
        elif seen.before.get(GitOpsStep.PROVE, _DRIFT) == _DRIFT:
            message = f"{application.in_words} is synced and healthy: watching for drift."
            await self._note(record, intent, claim, GitOpsStep.PROVE, message)
        elif now - seen.at[GitOpsStep.PROVE] < self.verifier.rules.soak:
            await self._rest(claim, record.incident)
        else:
            await self._close(record, intent, claim, application, seen)

    async def _unhealthy(self, record: IncidentRecord, intent: Intent, claim: Claim, now: datetime) -> bool:
        """Whether the service fails again: the incident waits, and is escalated once that lasts."""
        _, health = await self.verifier.look(record.incident, now)
        since = _unhealthy_since(record, intent)
        if health.health is not Health.UNHEALTHY:
            if since is not None and health.health is Health.HEALTHY:
                note = _health_note(intent, Health.HEALTHY, "; ".join(health.reasons), now)
                await self.store.incidents.save(claim, record.incident, [note])
                return True
            return False
        if since is None:
            note = _health_note(intent, Health.UNHEALTHY, "; ".join(health.reasons), now)
            await self._rest(claim, record.incident, note)
        elif now - since < self.verifier.rules.soak:
            await self._rest(claim, record.incident)
        else:
            why = f"The service recovered after the rollback and fails again: {'; '.join(health.reasons)}."
            relapsed = Verdict(
                kind=VerdictKind.NOT_RECOVERED, reasons=health.reasons, at=now, intent_id=intent.id
            )
            judged = replace(record.incident, verdict=relapsed)
            await self.closer.close_with(record, judged, claim, IncidentState.ESCALATED, [], why)
        return True

    async def _revert(
        self, record: IncidentRecord, intent: Intent, claim: Claim, seen: Progress, ref: ApplicationRef
    ) -> None:
        """Propose the revert once; without access to the repository, or refused, ask people for it."""
        assert self.gitops is not None  # noqa: S101 - the caller has checked
        repository, attempts = self.gitops.repository, seen.begun.get(GitOpsStep.REVERT, 0)
        application = await self.gitops.reader.application(ref)
        by_hand = f"revert {application.repository} to {short(text_of(intent.action, GIT_REVISION))} by hand"
        if repository is None:
            await self._reverted(
                record, intent, claim, f"No repository may be written (GIT_REVERT): {by_hand}.", None
            )
            return
        request = _request(record, intent, application)
        incident = record.incident
        try:
            where = await repository.find(request) if attempts else None
            if where is None and attempts >= MAX_ATTEMPTS:
                message = f"The revert was not proposed ({attempts} attempts were interrupted): {by_hand}."
                await self._reverted(record, intent, claim, message, None)
                return
            if where is None:
                message = f"Proposing the revert of {short(request.bad)} in {application.repository}."
                begun = step_note(intent, GitOpsStep.REVERT, message, self.clock.now(), done=False)
                incident = await self.store.incidents.save(claim, incident, [begun])
                where = await repository.open(request)
        except PermanentError as error:
            await self._reverted(
                replace(record, incident=incident),
                intent,
                claim,
                f"The revert was not proposed ({error}): {by_hand}.",
                None,
            )
            return
        await self._reverted(
            replace(record, incident=incident), intent, claim, f"Revert proposed: {where}. Merge it.", where
        )

    async def _reverted(
        self, record: IncidentRecord, intent: Intent, claim: Claim, message: str, where: str | None
    ) -> None:
        policy = progress(record, intent.id).policy
        held = " Automated sync stays off until then." if policy is not None else ""
        notes = [
            step_note(
                intent, GitOpsStep.REVERT, message + held, self.clock.now(), done=True, facts={"where": where}
            )
        ]
        if self.notifier is not None:
            try:
                await self.notifier.send(f"{record.incident.key}: {message}{held}", record.incident)
            except AgentError as error:
                failed = f"Notification failed: {error}."
                notes.append(Note(at=self.clock.now(), stage=Stage.EXECUTE, message=failed))
        await self.store.incidents.save(claim, replace(record.incident, wake_at=None), notes)

    async def _wait(
        self,
        record: IncidentRecord,
        intent: Intent,
        claim: Claim,
        application: Application,
        seen: Progress,
    ) -> None:
        """The repository does not ask for what runs yet, or drift shows after the policy was restored."""
        restored = GitOpsStep.RESTORE in seen.done
        since = seen.at[GitOpsStep.RESTORE] if restored else seen.at[GitOpsStep.REVERT]
        limit = self.verifier.rules.timeout if restored else self.timeout
        state = f"{application.in_words} is {application.sync} and {application.health}"
        if self.clock.now() - since <= limit:
            watched = seen.before.get(GitOpsStep.PROVE, _DRIFT) != _DRIFT
            drift = step_note(
                intent, GitOpsStep.PROVE, f"Drift: {state}.", self.clock.now(), done=False, facts=_DRIFT
            )
            await self._rest(claim, record.incident, *([drift] if watched else []))
            return
        good = short(text_of(intent.action, GIT_REVISION))
        waited = f"{limit.total_seconds():.0f} s"
        why = (
            f"The service recovered, but drift is left {waited} after the sync policy was restored: {state}."
            if restored
            else f"The service recovered, but Git does not ask for revision {good} after {waited}: {state}."
        )
        await self.closer.close(record, claim, IncidentState.ESCALATED, why)

    async def _close(
        self, record: IncidentRecord, intent: Intent, claim: Claim, application: Application, seen: Progress
    ) -> None:
        """Everything matches: the incident ends."""
        on = " Automated sync is on again." if seen.policy is not None and application.automated else ""
        proof = f"No drift: {application.in_words} is synced to {short(application.desired)} and healthy."
        note = step_note(intent, GitOpsStep.PROVE, proof, self.clock.now(), done=True)
        ended = replace(record.incident, wake_at=None)
        await self.closer.close_with(record, ended, claim, IncidentState.RECOVERED, [note], f"{proof}{on}")

    async def _note(
        self, record: IncidentRecord, intent: Intent, claim: Claim, step: GitOpsStep, message: str
    ) -> None:
        note = step_note(
            intent, step, message[0].upper() + message[1:], self.clock.now(), done=False, facts={}
        )
        await self.store.incidents.save(claim, replace(record.incident, wake_at=None), [note])

    async def _rest(self, claim: Claim, incident: Incident, *notes: Note) -> None:
        waiting = replace(
            incident, wake_at=self.clock.now() + self.verifier.rules.interval, failing_since=None
        )
        await self.store.incidents.save(claim, waiting, notes)


def _unhealthy_since(record: IncidentRecord, intent: Intent) -> datetime | None:
    """Since when the service fails again; None while it is healthy."""
    since: datetime | None = None
    for entry in record.timeline:
        if entry.data.get("intent") == intent.id and "follow_up" in entry.data:
            since = entry.at if entry.data["follow_up"] == Health.UNHEALTHY else None
    return since


def _health_note(intent: Intent, health: Health, reasons: str, at: datetime) -> Note:
    data: JsonObject = {"intent": intent.id, "follow_up": health}
    message = f"Service {health} after the rollback: {reasons}."
    return Note(at=at, stage=Stage.EXECUTE, message=message, data=data)


def _request(record: IncidentRecord, intent: Intent, application: Application) -> RevertRequest:
    incident = record.incident
    good, bad = text_of(intent.action, GIT_REVISION), text_of(intent.action, LEFT_REVISION)
    reasons = "; ".join(incident.verdict.reasons) if incident.verdict is not None else ""
    return RevertRequest(
        intent_id=intent.id,
        repository=application.repository,
        target_revision=application.target_revision,
        path=application.path,
        good=good,
        bad=bad,
        title=f"Revert {application.path or application.ref.name} to {short(good)}",
        body=(
            f"The agent rolled {application.in_words} back from {bad} to {good} (incident {incident.id}): "
            f"{incident.summary}\n\nAfter the rollback: {reasons}.\n\nThis change makes Git ask for what "
            "runs now. Automated sync is switched on again once it is merged."
        ),
    )
