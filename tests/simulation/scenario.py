"""What a seed stands for: who falls ill of what, what goes wrong meanwhile, and under which settings.

Everything is drawn from the seed before anything runs, so that a scenario can be
read as data; what happens at single crossings of a wire is drawn as it comes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from pydantic import SecretStr

from app.agent.models import DecisionKind, Risk
from app.config import Settings
from tests.reason_oracle import MAX_ERROR_RATE
from tests.simulation.afterwards import Afterwards, afterwards_of
from tests.simulation.faults import Odds
from tests.simulation.hostile import Hostile
from tests.simulation.world import Ailment, Remedy

RUNBOOKS = Path(__file__).parent / "runbooks"
RUNBOOKS_IN_PARTS = Path(__file__).parent / "runbooks_in_parts"
"""One runbook, with an action that only the next one completes."""
BREACH_FOR_SECONDS = 10.0
_WITH_A_RUNBOOK = 2 * (Ailment.BAD_CONFIG, Ailment.LEAK, Ailment.LEAK, Ailment.BAD_RELEASE)
_DRY_RUNS = (*6 * ((False,),), (True,), (True, False), (False, True))
"""Real, dry, and fleets whose setting is being changed."""
MAX_SAMPLE_AGE_SECONDS = 20.0
VERIFY_SOAK_SECONDS = 10.0
EVIDENCE_MAX_AGE_SECONDS = 15.0
"""A twentieth of the default, like the other times: a minute here is what hours are elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Illness:
    """One service falls ill; `well_at` is set where it goes away by itself."""

    at: float
    service: int
    ailment: Ailment
    remedy: Remedy
    well_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that holds from one moment to another, for one service or host, or for all."""

    start: float
    end: float
    number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The limits over all incidents of a seed; most seeds have none, for what is held back goes not wrong."""

    window_seconds: float = 60.0
    per_service: int = 1000
    per_cluster: int = 1000
    fleet_share: float = 1.0
    cooldown_seconds: float = 0.0
    backoff_seconds: float = 0.0
    memory_seconds: float = 0.0

    @classmethod
    def of(cls, seed: int) -> Shared:
        """Drawn by dice of its own, so that everything else in a seed is as it would be without."""
        dice = Random(f"limits/{seed}")  # noqa: S311 - a seed, no secret
        if dice.random() < 0.6:
            return cls()
        return cls(
            window_seconds=dice.uniform(20, 120),
            per_service=dice.choice((1, 2, 3, 50)),
            per_cluster=dice.choice((2, 3, 5, 100)),
            fleet_share=dice.choice((0.5, 1.0)),
            cooldown_seconds=dice.choice((0.0, 0.0, 30.0, 120.0)),
            backoff_seconds=dice.choice((0.0, 0.0, 20.0)),
            memory_seconds=dice.choice((0.0, 3600.0)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One seed, spelt out."""

    seed: int
    services: int
    hosts: int
    faults_until: float
    odds: Odds
    illnesses: tuple[Illness, ...]
    crashes: tuple[float, ...]
    pauses: tuple[Span, ...]
    jumps: tuple[Span, ...]
    """`end` is by how many seconds the clock of host `number` jumps."""
    meddlings: tuple[Span, ...]
    """When another person changes service `number`; a negative `end` deletes and recreates it."""
    scalings: tuple[Span, ...]
    """When an autoscaler gives service `number` one replica more."""
    silences: tuple[Span, ...]
    """Of service `number`, or of all."""
    outages: tuple[Span, ...]
    """Of the monitoring itself."""
    unmeasured: frozenset[int]
    """Services that the monitoring has no series of."""
    refusals: tuple[Span, ...]
    """When the metric source refuses to answer, and says that it measures all the same."""
    braked: Span | None
    dry_runs: tuple[bool, ...]
    """Per start of a host, repeated as often as needed."""
    allow_high_risk: bool
    budget: int
    shared: Shared
    approvals: bool
    strict_engine: bool
    """The policy engine has an opinion of its own on some actions."""
    poll_seconds: float
    concurrent_clients: int
    hostile: Hostile
    afterwards: Afterwards
    in_parts: bool = False
    """Configuration is read by pods as they start: its revert is complete with a restart only.

    The budget ends between the two.
    """

    def settings(self, start: int) -> Settings:
        """What the start number `start` of a host reads from its environment."""
        return _settings().model_copy(
            update={
                "runbooks_dir": RUNBOOKS_IN_PARTS if self.in_parts else RUNBOOKS,
                "dry_run": self.dry_runs[start % len(self.dry_runs)],
                "allow_high_risk_actions": self.allow_high_risk,
                "max_actions_per_incident": self.budget,
                "max_actions_per_service": self.shared.per_service,
                "max_actions_per_cluster": self.shared.per_cluster,
                "budget_window_seconds": self.shared.window_seconds,
                "max_fleet_share": self.shared.fleet_share,
                "cooldown_seconds": self.shared.cooldown_seconds,
                "backoff_base_seconds": self.shared.backoff_seconds,
                "action_memory_seconds": self.shared.memory_seconds,
                "approval_for_risks": frozenset({Risk.HIGH}) if self.approvals else frozenset(),
            }
        )

    def calm(self) -> Scenario:
        """The same services and histories on machines without faults: most incidents end in a real action."""
        return replace(
            self,
            odds=replace(self.odds.calm(), meddled=self.odds.meddled, resolved=self.odds.resolved),
            crashes=(),
            pauses=(),
            jumps=(),
            outages=(),
            silences=(),
            braked=None,
            dry_runs=(False,),
            allow_high_risk=True,
            budget=2 if self.in_parts else 3,
            approvals=False,
            strict_engine=False,
        )

    def engine_says(self, action: str, dice: Random) -> DecisionKind:
        if not self.strict_engine:
            return DecisionKind.ALLOW
        return dice.choice(
            (DecisionKind.ALLOW, DecisionKind.ALLOW, DecisionKind.NEEDS_APPROVAL, DecisionKind.DENY)
        )


@functools.cache
def _settings() -> Settings:
    """What all seeds have in common: everything that takes minutes elsewhere takes seconds here."""
    return Settings(
        _env_file=None,
        approval_timeout_seconds=30.0,
        breach_for_seconds=BREACH_FOR_SECONDS,
        slo_max_error_rate=MAX_ERROR_RATE,
        evidence_max_age_seconds=EVIDENCE_MAX_AGE_SECONDS,
        reopen_after_seconds=60.0,
        incident_settle_seconds=3.0,
        change_lookback_seconds=240.0,
        verify_soak_seconds=VERIFY_SOAK_SECONDS,
        verify_timeout_seconds=32.0,
        verify_interval_seconds=5.0,
        verify_max_sample_age_seconds=MAX_SAMPLE_AGE_SECONDS,
        # Several processes share the store, as on a server; it is never connected to.
        database_url=SecretStr("postgresql://simulated/heal"),
        claim_lease_seconds=15.0,
    )


def scenario_of(seed: int) -> Scenario:
    """Draw the scenario of a seed."""
    dice = Random(f"scenario/{seed}")  # noqa: S311 - a seed, no secret
    services = dice.choice((1, 2, 2, 3, 4))
    hosts = dice.choice((1, 2, 2, 3))
    until = dice.uniform(50, 95)
    odds, illnesses = Odds.of(dice), _illnesses(dice, services)
    in_parts = _in_parts(seed, illnesses)
    # By dice of their own, so that everything else in a seed is as it would be without.
    evidence = Random(f"evidence/{seed}")  # noqa: S311 - a seed, no secret
    return Scenario(
        seed=seed,
        services=services,
        hosts=hosts,
        faults_until=until,
        odds=replace(
            odds,
            resolved=evidence.choice((0.0, 0.8)),
            slept=evidence.choice((0.0, 0.0, 0.3)),
        ),
        illnesses=illnesses,
        crashes=_moments(dice, until, 0.5, 3),
        pauses=tuple(
            Span(start=at, end=at + dice.uniform(8, 45), number=dice.randrange(hosts))
            for at in _moments(dice, until, 0.4, 2)
        ),
        jumps=tuple(
            Span(
                start=at, end=dice.choice((-90.0, -20.0, -3.0, 3.0, 20.0, 90.0)), number=dice.randrange(hosts)
            )
            for at in _moments(dice, until, 0.3, 2)
        ),
        meddlings=tuple(
            Span(start=at, end=dice.choice((1.0, 1.0, 1.0, -1.0)), number=dice.randrange(services))
            for at in _moments(dice, until, 0.4, 4)
        ),
        scalings=_scalings(seed, services, until),
        silences=tuple(
            Span(
                start=at,
                end=at + dice.uniform(10, 70),
                number=dice.choice((None, dice.randrange(services))),
            )
            for at in _moments(dice, until, 0.3, 2)
        ),
        outages=tuple(Span(start=at, end=at + dice.uniform(5, 50)) for at in _moments(dice, until, 0.15, 1)),
        unmeasured=frozenset(n for n in range(services) if evidence.random() < 0.3),
        refusals=tuple(
            Span(start=at, end=at + evidence.uniform(10, 60)) for at in _moments(evidence, until, 0.2, 1)
        ),
        braked=_brake(dice, until),
        dry_runs=dice.choice(_DRY_RUNS),
        allow_high_risk=dice.random() < 0.8,
        budget=dice.choice((2, 2, 2, 2) if in_parts else (1, 2, 2, 3)),
        shared=Shared.of(seed),
        approvals=dice.random() < 0.2,
        strict_engine=dice.random() < 0.15,
        poll_seconds=dice.uniform(4.0, 12.0),
        concurrent_clients=dice.choice((1, 2)),
        hostile=Hostile.of(seed, illnesses, until),
        afterwards=afterwards_of(seed, services),
        in_parts=in_parts,
    )


def _scalings(seed: int, services: int, until: float) -> tuple[Span, ...]:
    """By dice of its own, so that everything else in a seed is as it would be without."""
    dice = Random(f"scalings/{seed}")  # noqa: S311 - a seed, no secret
    return tuple(
        Span(start=at, end=at, number=dice.randrange(services)) for at in _moments(dice, until, 0.5, 4)
    )


def _in_parts(seed: int, illnesses: tuple[Illness, ...]) -> bool:
    """In some of the seeds with a bad configuration, by dice of its own like the scalings."""
    dice = Random(f"phases/{seed}")  # noqa: S311 - a seed, no secret
    return dice.random() < 0.3 and any(one.ailment is Ailment.BAD_CONFIG for one in illnesses)


def _illnesses(dice: Random, services: int) -> tuple[Illness, ...]:
    found = []
    for service in range(services):
        if service > 0 and dice.random() < 0.1:
            continue
        at = dice.uniform(6, 25)
        found.append(
            Illness(
                at=at,
                service=service,
                ailment=dice.choice((*Ailment, *_WITH_A_RUNBOOK)),
                remedy=dice.choice((Remedy.HELPS, Remedy.HELPS, Remedy.USELESS, Remedy.HARMS)),
                well_at=at + dice.uniform(5, 50) if dice.random() < 0.15 else None,
            )
        )
    return tuple(found)


def _moments(dice: Random, until: float, odds: float, most: int) -> tuple[float, ...]:
    """Some moments between the first illness and the end of the faults, in most seeds none."""
    if dice.random() >= odds:
        return ()
    return tuple(sorted(dice.uniform(8, until) for _ in range(dice.randint(1, most))))


def _brake(dice: Random, until: float) -> Span | None:
    if dice.random() >= 0.2:
        return None
    at = dice.uniform(5, until - 20)
    return Span(start=at, end=min(until, at + dice.uniform(10, 60)))
