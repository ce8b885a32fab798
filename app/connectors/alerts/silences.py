"""Silences of Alertmanager, and which of them concern a service; its alerts by the same client.

`SilenceSource` over `GET /api/v2/silences`; reads only. Every silence in force is
matched with the labels of the alerts that are on record. Beside that one concerns a
service as a whole when an alert with the labels that it names would be mapped to that
service by `app.connectors.alerts.labels`. Conditions on labels that say neither
service nor place narrow it to alerts of the service. An answer that is not how
Alertmanager answers is an error, never "no silence".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from app.agent.freshness.silences import Matcher, Silence, Silencing
from app.agent.guardrails.workload_kinds import WORKLOAD_KINDS
from app.agent.ids import ServiceKey
from app.agent.ports.silences import SilenceScope
from app.config import Settings
from app.connectors.alerts.delivery import AlertDelivery
from app.connectors.alerts.firing import as_delivery, fingerprints, label_sets, of_name, parameters
from app.connectors.alerts.labels import (
    CLUSTER_LABELS,
    ENVIRONMENT_LABELS,
    SERVICE_LABELS,
    Unmapped,
    canonical_name,
    service_of,
)
from app.connectors.alerts.own_silences import AlertmanagerSilenceWriter, is_for, marked, peer_of, scope_of
from app.connectors.http import HttpPeer
from app.connectors.kinds import SilenceSourceKind
from app.connectors.text import shorten
from app.errors import PermanentError
from app.terms.clusters import cluster_names, clusters_of, of_cluster

_POD_OF = "-7d9c5b8f6d-x2x4z"
"""What follows the name of a Deployment in the name of one of its pods."""
_ANOTHER = "exported_"
_MINUTE = timedelta(minutes=1)

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _Matcher(msgspec.Struct, rename="camel"):
    name: str
    value: str
    is_regex: bool
    is_equal: bool = True
    """Left out before Alertmanager 0.22, which knew no negation."""


class _Status(msgspec.Struct):
    state: str


class _Silence(msgspec.Struct, rename="camel"):
    id: str
    status: _Status
    matchers: list[_Matcher]
    starts_at: _Time
    ends_at: _Time
    created_by: str = ""
    comment: str = ""


class AlertmanagerSilences:
    """The silences of one Alertmanager, or of what speaks its API."""

    def __init__(self, peer: HttpPeer, settings: Settings) -> None:
        self._peer = peer
        self._settings = settings

    @staticmethod
    def from_settings(settings: Settings) -> AlertmanagerSilences:
        """Raises `ConfigurationError` for settings that cannot work."""
        return AlertmanagerSilences(peer_of(settings), settings)

    async def concerning(self, key: ServiceKey, at: datetime) -> tuple[Silencing, ...]:
        """The silences in force that may concern the service or its alerts; raises like every port."""
        return tuple(
            silencing(one, key, self._settings)
            or Silencing(silence=one, labels_only=True, elsewhere=elsewhere(one, self._settings))
            for one in await self.active(at)
        )

    async def active(self, at: datetime) -> tuple[Silence, ...]:
        """Every silence that its source says is in force, whichever of the two clocks is ahead."""
        reply = await self._peer.send("GET", "/api/v2/silences")
        if reply.status != 200:
            raise self._peer.refusal(reply)
        try:
            listed = msgspec.json.decode(reply.body, type=list[_Silence])
            found = [_read(one) for one in listed if one.status.state == "active"]
        except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
            raise PermanentError(
                f"unexpected response from Alertmanager to a list of silences ({shorten(str(error))}); "
                "is ALERTMANAGER_URL the address of Alertmanager?"
            ) from None
        return tuple(_by_own_clock(one, at) for one in found)

    async def own(self, key: ServiceKey, at: datetime) -> tuple[Silence, ...]:
        """Those in force that the agent created for the service, oldest first; raises like every port."""
        found = [one for one in await self.active(at) if is_for(one, key)]
        return tuple(sorted(found, key=lambda one: (one.starts_at, one.id)))

    async def scope(self, key: ServiceKey) -> SilenceScope:
        """What a silence of the service has to name now; raises like every port."""
        reply = await self._peer.send("GET", "/api/v2/alerts", params=of_name(""))
        if reply.status != 200:
            raise self._peer.refusal(reply)
        cluster = of_cluster(self._settings, clusters_of(self._settings).of(key.environment))
        named = {**next(_labels_of(key, cluster)), **cluster.alert_home_labels}
        return scope_of(label_sets(reply.body), key, named, self._settings)

    async def own_silences(self, at: datetime) -> tuple[Silence, ...]:
        """Those in force that say the agent created them; raises like every port."""
        return tuple(one for one in await self.active(at) if one.intent_id is not None)

    async def firing(self, own: Collection[str]) -> AlertDelivery:
        """The alerts that fire and go to the agent's receiver; raises like every port.

        An alert that only the silences with the ids `own` mute fires.
        """
        receiver = self._settings.alertmanager_receiver
        reply = await self._peer.send("GET", "/api/v2/alerts", params=parameters(receiver, muted=bool(own)))
        if reply.status != 200:
            raise self._peer.refusal(reply)
        return as_delivery(reply.body, receiver, own)

    async def listed(self, name: str) -> frozenset[str]:
        """The fingerprints of all alerts of that name, in any state, for any receiver."""
        reply = await self._peer.send("GET", "/api/v2/alerts", params=of_name(name))
        if reply.status != 200:
            raise self._peer.refusal(reply)
        return fingerprints(reply.body)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._peer.aclose()


def _by_own_clock(one: Silence, at: datetime) -> Silence:
    """The silence with times between which `at` is; the end moves at most once a minute."""
    this_minute = at.replace(second=0, microsecond=0)
    ends_at = one.ends_at if at < one.ends_at else this_minute + 2 * _MINUTE
    return replace(one, starts_at=min(one.starts_at, at), ends_at=ends_at)


def _read(one: _Silence) -> Silence:
    incident_id, intent_id = marked(one.created_by, one.comment) or (None, None)
    return Silence(
        id=shorten(one.id, 100),
        matchers=tuple(
            Matcher(name=m.name, value=m.value, is_regex=m.is_regex, is_equal=m.is_equal)
            for m in one.matchers
        ),
        starts_at=one.starts_at.astimezone(UTC),
        ends_at=one.ends_at.astimezone(UTC),
        by=shorten(one.created_by, 100),
        comment=shorten(one.comment, 200),
        incident_id=incident_id,
        intent_id=intent_id,
    )


# ------------------------------------------------------------------ whom a silence concerns


def silencing(silence: Silence, key: ServiceKey, settings: Settings) -> Silencing | None:
    """How the silence concerns the service by what it names; None where it names another or none. Pure."""
    settings = of_cluster(settings, clusters_of(settings).of(key.environment))
    found = [
        one for labels in _labels_of(key, settings) if (one := _as_meant(silence, key, labels, settings))
    ]
    return min(found, key=lambda one: (not one.whole, one.narrowed), default=None)


def elsewhere(silence: Silence, settings: Settings) -> bool:
    """Whether no alert of a service of this agent can be meant, whatever its labels are. Pure.

    An alert that has another value in one of ALERT_HOME_LABELS is mapped to no service.
    Another service or namespace shows nothing: beside the labels of its subject an alert
    may have those of what reported it, of its own or of a service mesh.
    """
    clusters = (of_cluster(settings, name) for name in cluster_names(settings))
    return all(_elsewhere(silence, one) for one in clusters)


def _elsewhere(silence: Silence, settings: Settings) -> bool:
    """Whether no alert of the one cluster of the settings can be meant."""
    home = {canonical_name(name): value for name, value in settings.alert_home_labels.items()}
    return any(
        (value := home.get(canonical_name(one.name))) is not None
        and not one.matches(value)
        and not one.matches("")
        for one in silence.matchers
    )


def _labels_of(key: ServiceKey, settings: Settings) -> Iterator[dict[str, str]]:
    """The labels by which alerts are mapped to the service, in each form that they may have."""
    environment, _, elsewhere = key.environment.partition("--")
    namespace = elsewhere or settings.environment_namespaces.get(key.environment, key.environment)
    place = {"namespace": namespace, **({"environment": environment} if elsewhere else {})}
    yield {**place, "service": key.service}
    workload = settings.service_workloads.get(f"{key.environment}/{key.service}")
    if workload is not None:
        home, *kind, name = workload.split("/")
        yield {"namespace": home, (kind[0].lower() if kind else "deployment"): name}


@dataclass(slots=True, kw_only=True)
class _Meant:
    """What the conditions of one silence say, as they are read one by one."""

    expected: Mapping[str, str]
    """What each label that names service or place has as its value, for the service in question."""
    labels: dict[str, str] = field(default_factory=dict)
    alerts: list[Matcher] = field(default_factory=list)
    narrowed: bool = False
    named: bool = False
    """A condition on service, place or the name of the alert matches the service."""
    other: bool = False
    """A condition excludes it."""

    def take(self, matcher: Matcher) -> None:
        """Add one condition."""
        name = canonical_name(matcher.name)
        plain = name.removeprefix(_ANOTHER)
        expected = self.expected.get(plain)
        if name == "alertname":
            self.named = True
            if not matcher.everything:
                self.alerts.append(matcher)
        elif matcher.is_regex and matcher.is_equal and matcher.value == ".*":
            return  # every alert, with the label or without
        elif expected is None:
            self.narrowed = self.narrowed or plain not in CLUSTER_LABELS
            if not matcher.is_regex and matcher.is_equal and matcher.value:
                self.labels[name] = matcher.value
        elif matcher.matches(expected):
            if matcher.is_equal:
                self.labels[name], self.named = expected, True
        elif matcher.is_equal and not matcher.is_regex:
            # Another name of the service, what reports the metric, or another service: the mapping knows.
            self.narrowed = True
            if matcher.value:
                self.labels[name] = matcher.value
                self.named = self.named or plain == "pod"
        elif plain == "job":
            self.narrowed = True
        else:
            self.other = True


def _as_meant(
    silence: Silence, key: ServiceKey, labels: Mapping[str, str], settings: Settings
) -> Silencing | None:
    meant = _Meant(expected=_expected(key, labels, settings))
    for matcher in silence.matchers:
        meant.take(matcher)
    if meant.other or not meant.named:
        return None
    try:
        concerned = service_of(_completed(meant.labels, labels), settings, None)
    except Unmapped:
        return None
    if concerned != key:
        return None
    return Silencing(silence=silence, alerts=tuple(meant.alerts), narrowed=meant.narrowed)


def _expected(key: ServiceKey, labels: Mapping[str, str], settings: Settings) -> dict[str, str]:
    name = next((labels[kind.lower()] for kind in WORKLOAD_KINDS if kind.lower() in labels), key.service)
    expected = dict.fromkeys((*SERVICE_LABELS, *(kind.lower() for kind in WORKLOAD_KINDS)), name)
    expected["pod"] = name + _POD_OF
    expected.update(dict.fromkeys(ENVIRONMENT_LABELS, labels.get("environment", key.environment)))
    expected.update({canonical_name(k): v for k, v in settings.alert_home_labels.items()})
    return {**expected, "namespace": labels["namespace"]}


def _completed(meant: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that a silence names, completed by those of the service that it leaves open."""
    about_another = {name.removeprefix(_ANOTHER) for name in meant if name.startswith(_ANOTHER)}
    of_target = {"service", "app_kubernetes_io_name", "app", "pod", "container", "job"}
    dropped = about_another | (of_target if about_another & {"namespace", "pod", "container"} else set())
    given = {name: value for name, value in meant.items() if name not in dropped}
    given = {name.removeprefix(_ANOTHER): value for name, value in given.items()}
    names_service = any(name in given for name in SERVICE_LABELS if name != "job")
    left = {k: v for k, v in labels.items() if not (names_service and k in SERVICE_LABELS)}
    return {**left, **given}


KIND = SilenceSourceKind(
    title="Alertmanager",
    settings=("ALERTMANAGER_URL", "ALERTMANAGER_API_TOKEN"),
    configured=lambda settings: settings.alertmanager_url is not None,
    connect=AlertmanagerSilences.from_settings,
    connect_writer=AlertmanagerSilenceWriter.from_settings,
    polling="ALERTMANAGER_RECEIVER",
    polled_every=lambda settings: (
        timedelta(seconds=settings.alertmanager_poll_seconds) if settings.alertmanager_receiver else None
    ),
)
