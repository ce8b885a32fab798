"""The GitOps controller and its repository: reading, rehearsal and writing, each a separate port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from app.agent.gitops.application import Application, ApplicationRef
from app.agent.ids import IntentId, JsonObject
from app.agent.models import Rehearsal
from app.agent.workload import WorkloadView


class ApplicationReader(Protocol):
    """Looks at applications; never changes anything."""

    async def owner_of(self, workload: WorkloadView) -> Application | None:
        """The application that owns a workload, with the images of its history; None if there is none.

        What forbids acting through it is among its obstacles, not an error.
        """
        ...

    async def application(self, ref: ApplicationRef, *, refresh: bool = False) -> Application:
        """One application now, without images; `refresh` has the repository read again first."""
        ...


class ApplicationRehearsal(Protocol):
    """Asks the controller whether it would accept a change; changes nothing."""

    async def rehearse(self, ref: ApplicationRef, history_id: int) -> Rehearsal:
        """Whether a rollback would be accepted, missing rights included, as a value."""
        ...


class ApplicationWriter(Protocol):
    """Changes applications. Constructed only when `DRY_RUN=false`.

    Raises like `ClusterWriter`: `UnknownOutcome` where the request was sent and no
    answer arrived.
    """

    async def switch_off(self, ref: ApplicationRef, intent_id: IntentId) -> None:
        """Switch automated sync off, and mark the application with the intent, in one request."""
        ...

    async def roll_back(self, ref: ApplicationRef, history_id: int, *, prune: bool) -> None:
        """Start the rollback to an entry of the history; `prune` removes what that entry does not have."""
        ...

    async def restore(self, ref: ApplicationRef, policy: JsonObject) -> None:
        """Set the recorded policy again, and remove the mark, in one request."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertRequest:
    """The content that the repository should contain again."""

    intent_id: IntentId
    repository: str
    target_revision: str
    """The branch that the application follows."""
    path: str
    good: str
    bad: str
    title: str
    body: str


class RepositoryWriter(Protocol):
    """Proposes a revert, and never writes to the followed branch. Constructed only when `DRY_RUN=false`."""

    async def find(self, request: RevertRequest) -> str | None:
        """The revert of this intent if it is there already, in words; None otherwise."""
        ...

    async def open(self, request: RevertRequest) -> str:
        """Propose the revert on a branch of the intent's own; where it is, in words."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GitOps:
    """The connected ports of a GitOps controller."""

    reader: ApplicationReader
    rehearsal: ApplicationRehearsal
    writer: ApplicationWriter | None = None
    """None in a dry run."""
    repository: RepositoryWriter | None = None
    """None in a dry run, and where no repository may be written."""
