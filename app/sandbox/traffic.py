"""Load on the simulated services, and what it measures: requests, failures, latencies.

How a service does follows from the pods that are ready and from what their
templates say: `errors` in the image fails half of the requests, `slow` answers in
1.5 s, `FAIL_RATIO` in the environment or a ConfigMap fails that share, and
`DEPENDENCY_URL` at a service that is down fails every request that calls it. A service
with a model (`app.sandbox.services`) follows `app.sandbox.flow` instead. Levels are
kept as steps over time; a measurement looks back over a window, as a
monitoring system does.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit

from app.agent.evidence.cluster.flags import ENABLED, flags_of
from app.agent.models import SliSample
from app.sandbox.api import ApiServer, Thing
from app.sandbox.engine import Engine
from app.sandbox.flow import Flow, Result
from app.sandbox.objects import ConfigMap, Pod, ReplicaSet, Template
from app.sandbox.picture import flat as _flat
from app.sandbox.picture import picture, ratio, service_of
from app.sandbox.services import Surroundings

ERRORS_SHARE = 0.5
SLOW_MS = 1500.0
BASE_ERROR_SHARE = 0.001
BASE_LATENCY_MS = 80.0
NOISE = 0.03
"""Measured rates and latencies differ from the model by up to this share."""

_KEPT = timedelta(hours=6)
_TICK = timedelta(milliseconds=1)
_REACTION_SECONDS = 0.01
_DEPENDENCY_DEPTH = 8

Name = tuple[str, str]
"""Namespace and service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of the traffic that fares alike: the requests one template answers."""

    weight: float
    error_share: float
    p95_latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How a service does from `since` on; no shares: no pod answers, so nothing is measured."""

    since: datetime
    requests_per_second: float
    shares: tuple[Share, ...]
    failed: float = 0.0
    """Share of the requests that fail, answered or not: what users see, measured or not."""
    p95_latency_ms: float = 0.0
    """What users see, likewise."""


@dataclass(slots=True, kw_only=True)
class _Track:
    requests_per_second: float
    levels: list[Level] = field(default_factory=list)


class OutageKind(StrEnum):
    """What the telemetry shows during an outage."""

    NOTHING = "nothing"
    FROZEN = "frozen"
    """What it last saw, as if it were new."""
    ZEROS = "zeros"
    """Services without a single request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A hole in the telemetry: of these services, or of all when none are named."""

    since: datetime
    until: datetime | None
    services: frozenset[Name]
    shows: OutageKind = OutageKind.NOTHING

    def covers(self, name: Name, at: datetime) -> bool:
        """Whether it hides a service at a moment."""
        over = self.until is not None and at >= self.until
        return at >= self.since and not over and (not self.services or name in self.services)

    def cut(self, piece: tuple[datetime, datetime]) -> list[tuple[datetime, datetime]]:
        """What is left of a period outside the outage."""
        start, end = piece
        until = self.until if self.until is not None else end
        left = (start, min(end, self.since))
        right = (max(start, until), end)
        return [part for part in (left, right) if part[0] < part[1]]


class Traffic:
    """Follows the objects of the API server and remembers how each service did."""

    def __init__(self, engine: Engine, api: ApiServer, seed: int, surroundings: Surroundings) -> None:
        self._engine = engine
        self._api = api
        self._around = surroundings
        self._flow = Flow()
        self.noise = NOISE
        self._seed = seed
        self._tracks: dict[Name, _Track] = {}
        self._queued = False
        self.outages: list[Outage] = []
        self.source_down = False
        api.changed.append(self._notice)

    def serve(self, namespace: str, service: str, requests_per_second: float) -> None:
        """Send a service load from now on, or change it."""
        track = self._tracks.setdefault((namespace, service), _Track(requests_per_second=requests_per_second))
        track.requests_per_second = requests_per_second
        self._react()

    def reconsider(self) -> None:
        """Something changed besides the objects of the cluster: compute how every service fares again."""
        self._react()

    def levels(self, name: Name) -> tuple[Level, ...]:
        """Every step that is kept of a service, oldest first."""
        track = self._tracks.get(name)
        return () if track is None else tuple(track.levels)

    def offered(self, name: Name) -> float:
        """Requests per second from outside."""
        return self._tracks[name].requests_per_second

    def utilisation(self, name: Name) -> float:
        """Share of its capacity that a service with a model uses now."""
        found = self._flow.results.get(_flat(name))
        return 0.0 if found is None else found.utilisation

    def level(self, name: Name, at: datetime) -> Level | None:
        """The step in force at a moment; None before the service was known."""
        track = self._tracks.get(name)
        if track is None:
            return None
        index = bisect_right([level.since for level in track.levels], at)
        return track.levels[index - 1] if index else None

    def measure(self, name: Name, at: datetime, window: timedelta) -> SliSample:
        """What a monitoring system says at `at`, from what it has of the window before."""
        hidden = next((o for o in self.outages if o.covers(name, at)), None)
        if hidden is not None and hidden.shows is OutageKind.FROZEN:
            return replace(self.measure(name, hidden.since - _TICK, window), at=at)
        if hidden is not None and hidden.shows is OutageKind.ZEROS:
            return SliSample(at=at, request_rate=0.0)
        newest = self.newest(name, at, window)
        if newest is None:
            return SliSample(at=at)
        seen = list(self._slices(name, at - window, at))
        total = sum(requests for requests, _ in seen)
        if total <= 0:
            return SliSample(at=newest, request_rate=0.0)
        return SliSample(
            at=newest,
            error_rate=min(1.0, sum(requests * share.error_share for requests, share in seen) / total),
            p95_latency_ms=_percentile(seen, 0.95) * self._noise(name, newest, "latency"),
            request_rate=total / window.total_seconds() * self._noise(name, newest, "rate"),
        )

    def newest(self, name: Name, at: datetime, back: timedelta) -> datetime | None:
        """When a service was last measured up to `at`; None when it was not within `back`."""
        pieces = [end for start, end in self._measured(name, at - back, at) if end > start]
        return max(pieces, default=None)

    # -------------------------------------------------------------- inside

    def _slices(self, name: Name, start: datetime, end: datetime) -> Iterator[tuple[float, Share]]:
        """The measured requests between two moments, by how they fared."""
        for since, until in self._measured(name, start, end):
            level = self.level(name, since)
            seconds = (until - since).total_seconds()
            if level is not None:
                for share in level.shares:
                    yield seconds * level.requests_per_second * share.weight, share

    def _measured(self, name: Name, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The parts of a period, in order, in which the service answered and the telemetry saw it."""
        levels = self._tracks[name].levels if name in self._tracks else []
        for index, level in enumerate(levels):
            until = levels[index + 1].since if index + 1 < len(levels) else end
            if level.shares and max(level.since, start) < min(until, end):
                pieces = [(max(level.since, start), min(until, end))]
                for outage in self.outages:
                    if outage.shows is not OutageKind.NOTHING:
                        continue
                    if not outage.services or name in outage.services:
                        pieces = [rest for piece in pieces for rest in outage.cut(piece)]
                yield from pieces

    def _noise(self, name: Name, at: datetime, what: str) -> float:
        """A factor near one that depends on the seed and the moment only."""
        random_source = random.Random(f"{self._seed}/{name}/{what}/{at.timestamp():.0f}")  # noqa: S311 - no secret
        return random_source.uniform(1 - self.noise, 1 + self.noise)

    def _notice(self, _: Thing) -> None:
        self._react()

    def _react(self) -> None:
        """Compute the levels again, once for all the changes of a moment."""
        if not self._queued:
            self._queued = True
            self._engine.after(_REACTION_SECONDS, self._refresh)

    def _refresh(self) -> None:
        self._queued = False
        now = self._engine.now
        modelled = self._modelled(now)
        for name, track in self._tracks.items():
            level = modelled.get(name) or self._plain(name, track, now)
            last = track.levels[-1] if track.levels else None
            if last is None or replace(level, since=last.since) != last:
                track.levels.append(level)
            while len(track.levels) > 1 and track.levels[1].since < now - _KEPT:
                del track.levels[0]

    def _plain(self, name: Name, track: _Track, now: datetime) -> Level:
        shares = self._shares(name, 0)
        failed = sum(share.weight * share.error_share for share in shares) if shares else 1.0
        slowest = max((share.p95_latency_ms for share in shares), default=0.0)
        return Level(
            since=now,
            requests_per_second=track.requests_per_second,
            shares=shares,
            failed=failed,
            p95_latency_ms=slowest,
        )

    def _modelled(self, now: datetime) -> dict[Name, Level]:
        """How every service with a model fares, computed for all of them together."""
        if not self._around.models:
            return {}
        nodes, cold = picture(self._api, self._around, self.offered, now)
        if cold is not None:
            self._engine.after(cold, self._react)
        found = self._flow.settle(nodes, self._around, BASE_ERROR_SHARE)
        return {name: _level(now, found[_flat(name)]) for name in self._around.models if _flat(name) in nodes}

    def _shares(self, name: Name, depth: int) -> tuple[Share, ...]:
        """The ready pods of a service by template: each pod gets an equal part of the load."""
        serving: dict[Template, int] = {}
        for pod in self._ready_pods(name):
            serving[pod.template] = serving.get(pod.template, 0) + 1
        total = sum(serving.values())
        return tuple(
            Share(
                weight=count / total,
                error_share=self._error_share(name, template, depth),
                p95_latency_ms=SLOW_MS if "slow" in template.image else BASE_LATENCY_MS,
            )
            for template, count in serving.items()
        )

    def _ready_pods(self, name: Name) -> list[Pod]:
        namespace, service = name
        owners = {d.meta.uid for d in self._api.workloads(namespace) if service_of(d) == service}
        sets = {r.meta.uid for r in self._api.list(ReplicaSet, namespace) if r.owner_uid in owners}
        return [p for p in self._api.list(Pod, namespace) if p.ready and p.owner_uid in sets]

    def _error_share(self, name: Name, template: Template, depth: int) -> float:
        succeeds = 1 - BASE_ERROR_SHARE
        if "errors" in template.image:
            succeeds *= 1 - ERRORS_SHARE
        settings = self._settings(name[0], template)
        succeeds *= 1 - ratio(settings.get("FAIL_RATIO"))
        url = settings.get("DEPENDENCY_URL")
        if url:
            succeeds *= 1 - self._dependency_error_share(name[0], url, depth)
        return 1 - succeeds

    def _dependency_error_share(self, namespace: str, url: str, depth: int) -> float:
        """Share of calls to a dependency that fail: all when no pod is ready."""
        host = (urlsplit(url if "//" in url else f"//{url}").hostname or "").split(".")
        target = (host[1] if len(host) > 1 else namespace, host[0])
        shares = self._shares(target, depth + 1) if depth < _DEPENDENCY_DEPTH else ()
        if not shares:
            return 0.0 if depth >= _DEPENDENCY_DEPTH else 1.0
        return sum(share.weight * share.error_share for share in shares)

    def _settings(self, namespace: str, template: Template) -> Mapping[str, str]:
        """What the container reads: its ConfigMaps, overridden by its environment."""
        merged: dict[str, str] = {}
        for config in self._api.list(ConfigMap, namespace):
            if config.meta.name in template.config_maps:
                merged.update(config.data)
                merged.update(_values(config))
        merged.update(template.env)
        return merged


def _values(config: ConfigMap) -> dict[str, str]:
    """What its enabled feature flags are set to."""
    found = {}
    for place, flag in flags_of(config.data).items():
        variants, chosen = flag.get("variants"), flag.get("defaultVariant")
        if flag.get("state") == ENABLED and isinstance(variants, dict):
            found[place.name] = str(variants.get(str(chosen)))
    return found


def _level(now: datetime, result: Result) -> Level:
    shares = tuple(
        Share(weight=part.weight, error_share=round(part.errors, 4), p95_latency_ms=round(part.latency_ms, 0))
        for part in result.parts
    )
    return Level(
        since=now,
        requests_per_second=round(result.load, 2),
        shares=shares,
        failed=round(result.errors, 4),
        p95_latency_ms=round(result.latency_ms, 0),
    )


def _percentile(seen: list[tuple[float, Share]], quantile: float) -> float:
    """The latency that this share of the requests does not exceed."""
    total = sum(requests for requests, _ in seen)
    reached = 0.0
    ordered = sorted(seen, key=lambda part: part[1].p95_latency_ms)
    for requests, share in ordered:
        reached += requests
        if reached >= quantile * total:
            return share.p95_latency_ms
    return ordered[-1][1].p95_latency_ms
