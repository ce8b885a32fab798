"""Settings with parts: the entries of lists and mappings, and the closed sets of values.

`Settings` and what reads an entry use them; each part is checked where it stands.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from app.agent.guardrails.freeze import check_cron
from app.settings.values import Named, Namespace


class Role(StrEnum):
    """What one process of the agent does."""

    ALL = "all"
    API = "api"
    WORKER = "worker"
    WATCH = "watch"


class PageWhen(StrEnum):
    """When an incident opens an alert at a paging service."""

    PERSON_NEEDED = "person_needed"
    """While a request waits for an answer, or the incident is escalated."""
    OPENED = "opened"
    """From its start to its end."""


class RevertWay(StrEnum):
    """How the agent proposes a revert in Git."""

    BRANCH = "branch"
    GITHUB = "github"
    GITLAB = "gitlab"


RoleName = Annotated[str, Field(min_length=1, max_length=200)]


class EscalationSetting(BaseModel):
    """One step of APPROVAL_ESCALATION."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after_seconds: Annotated[float, Field(gt=0)]
    roles: Annotated[tuple[RoleName, ...], Field(min_length=1)]


class FreezeSetting(BaseModel):
    """One window of FREEZE_WINDOWS."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    hours: Annotated[float, Field(gt=0, le=8784)]
    cron: str | None = None
    starts_at: AwareDatetime | None = None
    time_zone: str = "UTC"
    environments: tuple[Named, ...] = ()
    services: tuple[Named, ...] = ()

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        if value is not None:
            check_cron(value)
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{value!r} is not a time zone; use a name such as Europe/Berlin") from None
        return value

    @model_validator(mode="after")
    def _starts_somehow(self) -> FreezeSetting:
        if (self.cron is None) == (self.starts_at is None):
            raise ValueError("give either cron or starts_at")
        return self


class SlackUser(BaseModel):
    """One entry of SLACK_USERS: who a Slack user is to the agent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    roles: tuple[RoleName, ...] = ()


class ClusterSetting(BaseModel):
    """One cluster of CLUSTERS: how it is reached, its environments, and how its alerts are labelled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kubeconfig: Path | None = None
    context: str | None = None
    in_cluster: bool = False
    environment_namespaces: dict[Named, Namespace] = Field(default_factory=dict)
    alert_labels: dict[Named, str] = Field(default_factory=dict)
    argocd_destination: str | None = None
    """The `server` or the `name` of this cluster in the destination of an Application."""

    @model_validator(mode="after")
    def _reached_and_named(self) -> ClusterSetting:
        if self.in_cluster is (self.kubeconfig is not None):
            raise ValueError("give either kubeconfig or in_cluster: true")
        if self.context is not None and self.kubeconfig is None:
            raise ValueError("context names a context of kubeconfig; give both")
        if not self.environment_namespaces:
            raise ValueError(
                'environment_namespaces is missing; name its environments: {"prod-east": "payments"}'
            )
        return self

    def labels(self, name: str) -> dict[str, str]:
        """The labels of its alerts: `cluster` with its name where none are given."""
        return dict(self.alert_labels) or {"cluster": name}
