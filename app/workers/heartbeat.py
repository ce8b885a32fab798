"""Calls HEARTBEAT_URL while the driver of this process makes progress: a dead man's switch.

A monitoring service outside the installation pages people when the calls stop. The call
carries nothing about incidents; it is made in a dry run, too, where the agent also has to live.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from app.clock import Clock
from app.config import Settings
from app.connectors.http import HttpPeer
from app.errors import AgentError, TransientError
from app.vitals import Vitals

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """One process's calls; it stops calling when the part named `part` is stuck or gone."""

    peer: HttpPeer
    vitals: Vitals
    part: str
    clock: Clock
    every_seconds: float

    @staticmethod
    def from_settings(settings: Settings, vitals: Vitals, part: str, clock: Clock) -> Heartbeat | None:
        """None without an address; raises `ConfigurationError` for an unusable one."""
        if settings.heartbeat_url is None:
            return None
        peer = HttpPeer(
            name="the heartbeat service",
            setting="HEARTBEAT_URL",
            url=settings.heartbeat_url.get_secret_value(),
            timeout_seconds=_TIMEOUT_SECONDS,
        )
        return Heartbeat(
            peer=peer, vitals=vitals, part=part, clock=clock, every_seconds=settings.heartbeat_seconds
        )

    async def run(self) -> None:
        """Call until cancelled."""
        try:
            while True:
                await self.beat()
                await self.clock.sleep(self.every_seconds)
        finally:
            await self.peer.aclose()

    async def beat(self) -> bool:
        """One call; False, with a line in the log, where it was not made or not accepted."""
        try:
            if self.part not in self.vitals.idle_seconds():
                raise TransientError(f"the {self.part} does not run")
            await self.vitals.check()
            reply = await self.peer.send("GET")
            if not reply.ok:
                raise self.peer.refusal(reply, "")
        except AgentError as error:
            log.warning("no heartbeat: %s", error)
            return False
        return True
