"""The state that a GitOps controller reports for the application that owns a workload, at one instant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.agent.ids import IntentId


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationRef:
    """Names one application of a GitOps controller."""

    namespace: str
    name: str

    @staticmethod
    def parse(text: str) -> ApplicationRef:
        """The inverse of `str`."""
        namespace, _, name = text.partition("/")
        return ApplicationRef(namespace=namespace, name=name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncedRevision:
    """One entry of an application's history: a revision of the repository that was deployed."""

    id: int
    revision: str
    at: datetime
    by: str | None = None
    """Who started the sync; None where the controller did."""
    images: tuple[str, ...] | None = None
    """The images of the workload in that revision, sorted; None: not known."""


class OperationPhase(StrEnum):
    """How far a sync or rollback has come."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The last sync or rollback of an application, running or ended."""

    phase: OperationPhase
    started_at: str
    """As the controller wrote it: distinguishes one operation from another."""
    revision: str | None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """One application: its health, sync state, policy and history."""

    ref: ApplicationRef
    controller: str
    """The name of the controller, for text."""
    owner: str
    """What `WorkloadView.managed_by` says of the workloads that it owns."""
    policy: dict[str, Any] | None
    """The part of the specification that says how automated sync works; None where there is none."""
    automated: bool
    """Automated sync is on."""
    prunes: bool = False
    """Automated sync removes objects that the repository no longer has."""
    health: str
    sync: str
    desired: str | None
    """The revision of the repository that the live state is compared with."""
    target_revision: str
    """The branch, tag or commit that the application follows."""
    repository: str
    path: str
    history: tuple[SyncedRevision, ...]
    """Newest first."""
    operation: Operation | None = None
    busy: bool = False
    """An operation is requested or running."""
    obstacles: tuple[str, ...] = ()
    """Why the agent must not act through this application, each a sentence that names the owner."""
    held_by: IntentId | None = None
    """The intent that switched automated sync off, as recorded on the application."""
    resources: int = 0
    """How many objects the application owns."""
    health_message: str = ""
    kind: str = "application"
    """The controller's word for it, for text."""

    @property
    def in_words(self) -> str:
        """Controller and application, for the middle of a sentence."""
        return f"{self.controller} {self.kind} {self.ref}"

    @property
    def matches_repository(self) -> bool:
        """The live state matches the repository and is healthy."""
        return self.sync == "Synced" and self.health == "Healthy" and not self.busy
