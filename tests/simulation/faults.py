"""What can go wrong on the way between a host and everything outside it, and how often.

Every kind of misfortune that a seed may bring has a name here; the command fails
when one of them never came up over all seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random


class Kind(StrEnum):
    """Every misfortune by name."""

    CRASH_BEFORE = "crash before a request"
    CRASH_WAITING = "crash while a request is on the wire"
    CRASH_AFTER = "crash before an answer is heard"
    CRASH_AT_A_TIME = "crash at a moment"
    WIRE_CUT = "request of a dead host lost on the wire"
    WIRE_LATE = "request of a dead host arrives all the same"
    PAUSE = "host stops for longer than its lease"
    MISTAKEN_FOR_DEAD = "paused host taken for dead"
    SLOW = "slow answer"
    REFUSED = "store refuses before a commit"
    ANSWER_LOST = "commit happened, error told"
    CLOCK_FORWARD = "clock jumps forward"
    CLOCK_BACK = "clock jumps back"
    BELL_LOST = "bell lost"
    WRITE_REFUSED = "cluster refuses a write"
    WRITE_CONFLICT = "object moves right before a write"
    WRITE_UNHEARD = "write applied, answer lost"
    WRITE_LATE = "write arrives long after its sender gave up"
    WRITE_LOST = "write never arrives, without an error"
    CLUSTER_DOWN = "cluster does not answer"
    CHANGED_BY_OTHER = "someone else changes the object"
    SCALED_BY_OTHER = "an autoscaler changes the replicas"
    OUTAGE = "telemetry outage"
    SILENT = "metrics of a service missing"
    NOT_MEASURABLE = "metric source refuses a service"
    MUTED = "alerts or a service silenced by people"
    QUIET = "hardly anybody calls a service"
    BY_HAND = "release by hand while an incident is open"
    POLICY_DOWN = "policy engine fails"
    PEOPLE_DEAF = "people cannot be told"
    DUPLICATE = "signal delivered twice"
    REORDERED = "signals out of order"
    STALE = "signal long out of date"
    RETRY_WITH_KEY = "delivery repeated with its idempotency key"
    RETRY_WITHOUT_KEY = "delivery repeated without a key"
    REDELIVERED = "stream message delivered again"
    BRAKED = "kill switch engaged"
    METRICS_REFUSED = "metric source refuses to answer"
    UNMEASURED = "no series of a service at all"
    RESOLVED = "alert resolved"
    RESOLVED_EARLY = "alert resolved while its service is unhealthy"
    FIRES_AGAIN = "alert repeated after its resolution"
    NEVER_RESOLVED = "alert that never resolves"
    SLEPT = "host stands still for longer than evidence lasts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """How likely each misfortune is at one crossing of a wire; 0..1."""

    crash: float = 0.0
    crash_around_write: float = 0.0
    """At the points between an intent, its effect and its outcome."""
    slow: float = 0.0
    refused: float = 0.0
    answer_lost: float = 0.0
    bell_lost: float = 0.0
    write_trouble: float = 0.0
    cluster_down: float = 0.0
    policy_down: float = 0.0
    deaf: float = 0.0
    meddled: float = 0.0
    """Another person changes the object just when the agent has decided, or begun."""
    silenced: float = 0.0
    """The metrics of a service go missing just when an action on it is put to the test."""
    braked: float = 0.0
    """The kill switch is engaged at such a moment."""
    resolved: float = 0.0
    """The alert of the service resolves at such a moment."""
    slept: float = 0.0
    """The host stands still at such a moment, for longer than evidence lasts."""

    @classmethod
    def of(cls, dice: Random) -> Odds:
        """A separate mix for each seed: some seeds see only one kind of fault, some see all."""

        def some(most: float) -> float:
            return dice.choice((0.0, most / 4, most))

        return cls(
            crash=some(0.006),
            crash_around_write=some(0.35),
            slow=some(0.03),
            refused=some(0.02),
            answer_lost=some(0.03),
            bell_lost=some(0.5),
            write_trouble=some(0.7),
            cluster_down=some(0.02),
            policy_down=some(0.3),
            deaf=some(0.3),
            meddled=some(0.3),
            silenced=some(0.3),
            braked=some(0.25),
        )

    def calm(self) -> Odds:
        """When the faults stop."""
        return replace(self, **dict.fromkeys(self.__dataclass_fields__, 0.0))
