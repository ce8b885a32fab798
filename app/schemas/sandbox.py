"""The sandbox and its scenarios."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class ScenarioView(BaseModel):
    """A scenario that the sandbox offers."""

    name: str = Field(examples=["bad-release"])
    title: str = Field(examples=["A bad release"])
    about: str


class ScenarioRunView(BaseModel):
    """One run of a scenario in the sandbox. Times are those of the simulation."""

    scenario: str = Field(examples=["bad-release"])
    title: str
    environment: str = Field(
        description="Its services and incidents are in this environment.", examples=["sandbox"]
    )
    started_at: datetime
    ends_at: datetime = Field(description="The horizon of the scenario; its services run on.")


class SandboxView(BaseModel):
    """The sandbox: its time, the scenarios on offer, and the one that was started last."""

    now: datetime = Field(description="The simulated time.")
    speed: float = Field(description="Simulated seconds in a second.", examples=[10])
    scenarios: list[ScenarioView]
    run: ScenarioRunView | None = Field(description="The newest run; null before the first start.")
