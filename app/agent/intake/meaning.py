"""The effect of a signal on its service, before an open incident is considered. Pure."""

from __future__ import annotations

import msgspec

from app.agent.models import Change, Trigger
from app.agent.ports.store.signals import ServiceLevels


class SignalMeaning(msgspec.Struct, frozen=True, kw_only=True):
    """The meaning of a payload for its service, without regard to an open incident."""

    triggers: tuple[Trigger, ...] = ()
    healthy_reason: str = ""
    unsustained: tuple[str, ...] = ()
    breaching: tuple[Trigger, ...] = ()
    """Above the SLO for any duration; the duration limits opening an incident, not joining one."""
    levels: ServiceLevels | None = None
    change: Change | None = None
    joins: bool = True
    """Worth keeping with an open incident."""
    may_be_quieted: bool = True
    """Whether the same symptom recurs after an incident without recovery."""
