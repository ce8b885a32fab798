"""Whether the agent is up and ready, and its version."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class HealthView(BaseModel):
    """The process is up."""

    status: Literal["ok"]


class VersionView(BaseModel):
    """The version of the agent."""

    version: str = Field(examples=["0.1.0"])
    sandbox: bool = Field(default=False, description="The cluster and its metrics are simulated.")


class CheckView(BaseModel):
    """One dependency of the agent."""

    name: str
    ready: bool
    message: str


class ReadyView(BaseModel):
    """All dependencies respond."""

    status: Literal["ready"]
    checks: list[CheckView]
