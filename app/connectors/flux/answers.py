"""A Kustomization of Flux and its source, as the agent reads them. Pure.

Automated sync is a property of the source: a GitRepository that is neither suspended nor
pinned to a commit brings each new commit of its branch to the Kustomization.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.agent.gitops.application import (
    Application,
    ApplicationRef,
    Operation,
    OperationPhase,
    SyncedRevision,
)
from app.agent.ids import IntentId, JsonObject
from app.agent.workload import ObjectRef, Revision
from app.connectors.flux.obstacles import obstacles
from app.connectors.git.contents import Tip
from app.connectors.kubernetes.fields import (
    condition_of,
    flag,
    mapping,
    moment,
    name,
    number,
    objects,
    text,
    texts,
)
from app.connectors.text import shorten
from app.errors import PermanentError
from app.redaction import redacted

TITLE = "Flux"
OWNER = "flux"
"""What `WorkloadView.managed_by` says of a workload that Flux owns."""
MARK = "self-healing-devops-agent/intent"
"""The annotation of a source that names the intent which suspended it."""

_COMMIT = re.compile(r"(?:^|[:/])([0-9a-f]{40})$")
_DEFAULT_BRANCH = "master"
"""What a GitRepository without a reference follows."""
_SUCCEEDED = "ReconciliationSucceeded"
_HEALTH = {"True": "Healthy", "False": "Degraded"}
_FOLLOWS = timedelta(seconds=5)
"""Within this time after an apply, its ReplicaSet or ControllerRevision is there."""
_STAMPS = timedelta(seconds=2)
"""Times of objects are whole seconds: one so much later may be no later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A Kustomization and the GitRepository that it takes its manifests from."""

    kustomization: JsonObject
    source: JsonObject
    """Empty where its source is of another kind."""

    @property
    def pinned(self) -> str | None:
        """The commit that the source is held at."""
        return text(self.source, "spec", "ref", "commit")

    @property
    def suspended(self) -> bool:
        """The source fetches no commits."""
        return flag(self.source, "spec", "suspend")

    @property
    def mark(self) -> str | None:
        """The intent that suspended the source."""
        return texts(self.source, "metadata", "annotations").get(MARK) or None

    @property
    def branch(self) -> str:
        """The branch that the source follows."""
        return text(self.source, "spec", "ref", "branch") or _DEFAULT_BRANCH

    @property
    def repository(self) -> str:
        """Its address."""
        return text(self.source, "spec", "url") or ""

    @property
    def path(self) -> str:
        """The folder of the Kustomization, from the root of the repository; empty for the root."""
        parts = (text(self.kustomization, "spec", "path") or "").split("/")
        return "/".join(part for part in parts if part not in ("", "."))

    @property
    def artifact(self) -> str | None:
        """The commit that the source serves."""
        return commit_of(text(self.source, "status", "artifact", "revision"))

    @property
    def attempted(self) -> str | None:
        """The commit that was applied last, or is being applied."""
        return commit_of(text(self.kustomization, "status", "lastAttemptedRevision"))

    @property
    def applied(self) -> str | None:
        """The commit that was applied last with success."""
        return commit_of(text(self.kustomization, "status", "lastAppliedRevision"))


def commit_of(revision: str | None) -> str | None:
    """The commit in a revision as Flux writes it, such as `main@sha1:...`; None where there is none."""
    found = _COMMIT.search(revision or "")
    return found[1] if found is not None else None


def lists(kustomization: JsonObject, target: ObjectRef) -> bool:
    """Whether a Kustomization has this workload in its inventory."""
    wanted = f"{target.namespace}_{target.name}_apps_{target.kind}"
    return any(text(one, "id") == wanted for one in objects(kustomization, "status", "inventory", "entries"))


def application_from(found: Deployed, tip: Tip | None = None, more: Sequence[str] = ()) -> Application:
    """A Kustomization with its source; `tip` is what the branch asks for, where that was compared.

    `more` are obstacles that do not stand on the two objects.
    """
    if not name(found.kustomization):
        raise PermanentError(f"unexpected response from {TITLE}: not a Kustomization")
    ready = condition_of(found.kustomization, "Ready")
    operation, busy = _operation(found), _busy(found)
    synced, desired = _sync(found, tip, busy=busy)
    ref = _ref(found.kustomization)
    return Application(
        ref=ref,
        controller=TITLE,
        kind="Kustomization",
        owner=OWNER,
        policy=policy_of(found),
        automated=not found.suspended and found.pinned is None,
        prunes=flag(found.kustomization, "spec", "prune"),
        health=_HEALTH.get(text(ready, "status") or "", "Progressing"),
        health_message=_said(ready),
        sync=synced,
        desired=desired,
        target_revision=found.branch,
        repository=found.repository,
        path=found.path,
        history=_history(found),
        operation=operation,
        busy=busy,
        obstacles=(*obstacles(found.kustomization, found.source, ours=found.mark is not None), *more),
        held_by=IntentId(found.mark) if found.mark is not None else None,
        resources=len(objects(found.kustomization, "status", "inventory", "entries")),
    )


def release_from(release: JsonObject) -> Application:
    """A HelmRelease: recognised, and never changed by the agent."""
    versions = [
        f"{text(one, 'chartVersion')} ({text(one, 'status')})"
        for one in objects(release, "status", "history")[:2]
    ]
    known = f"; charts {', before '.join(versions)}" if versions else ""
    ready = condition_of(release, "Ready")
    state = _HEALTH.get(text(ready, "status") or "", "Progressing")
    held = "suspended" if flag(release, "spec", "suspend") else "active"
    ref = _ref(release)
    why = (
        f"{TITLE} HelmRelease {ref} ({held}, {state}{known}) is released by the helm-controller, which takes "
        "the chart and its values from its specification: set the earlier version in Git"
    )
    return Application(
        ref=ref,
        controller=TITLE,
        kind="HelmRelease",
        owner=OWNER,
        policy=None,
        automated=held == "active",
        health=state,
        health_message=_said(ready),
        sync="Unknown",
        desired=None,
        target_revision="",
        repository="",
        path="",
        history=(),
        obstacles=(why,),
    )


def policy_of(found: Deployed) -> JsonObject:
    """What says how the source follows its branch, as it is written; None: not set."""
    spec = mapping(found.source, "spec")
    return {"suspend": spec.get("suspend"), "commit": found.pinned}


def history_id(commit: str) -> int:
    """The number of a commit in the history, which has none of its own."""
    return int(commit[:12], 16)


def images_at(
    revisions: Sequence[Revision], entry: SyncedRevision, following: SyncedRevision | None = None
) -> tuple[str, ...] | None:
    """The images of the workload that an entry of the history deployed, sorted.

    Those of the newest template that was there when the entry was recorded. None where a
    later use of an older template makes that unclear, or where the template may be that of
    `following`, the next newer entry.
    """
    there = [one for one in revisions if one.created_at <= entry.at + _FOLLOWS]
    if not there:
        return None
    newest = max(there, key=lambda one: (one.created_at, one.number))
    if any(one.number > newest.number and one.created_at < newest.created_at for one in revisions):
        return None
    if following is not None and newest.created_at > entry.at:
        # An entry is recorded at the end of its apply, so that the next may have begun before.
        close = following.at <= entry.at + _FOLLOWS
        if close or newest.created_at > entry.at + _STAMPS:
            return None
    return tuple(sorted(newest.images))


def _ref(item: JsonObject) -> ApplicationRef:
    return ApplicationRef(namespace=text(item, "metadata", "namespace") or "", name=name(item))


def _said(ready: JsonObject) -> str:
    return redacted(shorten(text(ready, "message") or "", 300))


def _observed(item: JsonObject) -> bool:
    """The controller has seen the newest specification."""
    return number(item, "status", "observedGeneration") == number(item, "metadata", "generation")


def _busy(found: Deployed) -> bool:
    """A change of the source is on its way through the Kustomization."""
    running = text(condition_of(found.kustomization, "Ready"), "status") not in ("True", "False")
    if found.pinned is not None:
        return running or found.attempted != found.pinned
    if found.suspended:
        return False
    return running or not _observed(found.source) or found.attempted != found.artifact


def _sync(found: Deployed, tip: Tip | None, *, busy: bool) -> tuple[str, str | None]:
    """Whether what runs is what the branch asks for, and the commit that was compared."""
    if found.pinned is not None:
        if tip is None:
            return "OutOfSync", None
        matches = tip.same and found.applied == found.pinned and not busy
        return ("Synced" if matches else "OutOfSync"), tip.commit
    if found.suspended:
        return "Unknown", found.artifact
    matches = not busy and found.applied is not None and found.applied == found.artifact
    return ("Synced" if matches else "OutOfSync"), found.artifact


def _operation(found: Deployed) -> Operation | None:
    """The last apply, running or ended; a source that cannot fetch its commit is one that failed."""
    fetched = condition_of(found.source, "Ready")
    generation = number(found.source, "metadata", "generation")
    if (
        found.pinned is not None
        and text(fetched, "status") == "False"
        and number(fetched, "observedGeneration") == generation
    ):
        return Operation(
            phase=OperationPhase.FAILED,
            started_at=f"generation {generation}",
            revision=found.pinned,
            message=_said(fetched),
        )
    if found.attempted is None:
        return None
    ready = condition_of(found.kustomization, "Ready")
    phase = OperationPhase.RUNNING
    if found.attempted == found.artifact:
        if text(ready, "status") == "True" and found.applied == found.attempted:
            phase = OperationPhase.SUCCEEDED
        elif text(ready, "status") == "False":
            phase = OperationPhase.FAILED
    stored = mapping(found.source, "status", "artifact")
    started = f"{found.attempted} {text(stored, 'lastUpdateTime') or ''}".strip()
    return Operation(phase=phase, started_at=started, revision=found.attempted, message=_said(ready))


def _history(found: Deployed) -> tuple[SyncedRevision, ...]:
    """Newest first, each commit once; one that is being applied is not recorded yet."""
    entries: dict[str, SyncedRevision] = {}
    for one in objects(found.kustomization, "status", "history"):
        metadata, at = texts(one, "metadata"), moment(one, "firstReconciled")
        commit = commit_of(metadata.get("revision"))
        if commit is None or at is None or commit in entries:
            continue
        entries[commit] = SyncedRevision(id=history_id(commit), revision=commit, at=at)
    newest, current = next(iter(entries), None), found.attempted
    if current is None or current == newest:
        return tuple(entries.values())
    at = moment(found.source, "status", "artifact", "lastUpdateTime") if current == found.artifact else None
    at = at or moment(condition_of(found.kustomization, "Ready"), "lastTransitionTime")
    if at is None:
        return tuple(entries.values())
    beginning = SyncedRevision(id=history_id(current), revision=current, at=at)
    return (beginning, *(one for commit, one in entries.items() if commit != current))


def succeeded(found: Deployed) -> frozenset[str]:
    """The commits of the history that were applied, and healthy where health is checked."""
    return frozenset(
        commit
        for one in objects(found.kustomization, "status", "history")
        if text(one, "lastReconciledStatus") == _SUCCEEDED
        if (commit := commit_of(texts(one, "metadata").get("revision"))) is not None
    )
