"""The agent's own silences in Alertmanager: their matchers, their recognition, and their writes.

A silence of the agent has the agent as its author and ends its comment with the ids of
incident and intent. Alertmanager has no condition on a write, so that the caller looks
for the intent's silence before it creates one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from app.agent.freshness.silences import Matcher, Silence
from app.agent.guardrails.document import AGENT_NAME
from app.agent.guardrails.workload_kinds import WORKLOAD_KINDS
from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.ports.silences import SilenceScope, WantedSilence
from app.config import Settings
from app.connectors.alerts.labels import (
    CLUSTER_LABELS,
    ENVIRONMENT_LABELS,
    SERVICE_LABELS,
    Unmapped,
    canonical_name,
    service_of,
)
from app.connectors.http import HttpPeer
from app.errors import ConfigurationError, TransientError, UnknownOutcome

_MARK = re.compile(r"\(incident (?P<incident>[A-Za-z0-9_-]+), intent (?P<intent>[A-Za-z0-9_-]+)\)$")
_OF_SUBJECT = frozenset(
    {
        *(name for name in SERVICE_LABELS if name not in ("pod", "job")),
        *(kind.lower() for kind in WORKLOAD_KINDS),
        "namespace",
        *ENVIRONMENT_LABELS,
        *CLUSTER_LABELS,
    }
)
"""Labels that say which service an alert is about, and where it runs."""
_GONE = 404


def comment_of(wanted: WantedSilence) -> str:
    """The comment of the silence in Alertmanager, with the mark that identifies it."""
    return (
        f"The agent heals {wanted.key}; it ends this silence then "
        f"(incident {wanted.incident_id}, intent {wanted.intent_id})"
    )


def marked(by: str, comment: str) -> tuple[IncidentId, IntentId] | None:
    """The incident and the intent of a silence, by author and comment; None for another author."""
    found = _MARK.search(comment) if by == AGENT_NAME else None
    return None if found is None else (IncidentId(found["incident"]), IntentId(found["intent"]))


def is_for(silence: Silence, key: ServiceKey) -> bool:
    """Whether a silence of the agent was created for the service."""
    return silence.intent_id is not None and silence.comment.startswith(f"The agent heals {key};")


def scope_of(
    firing: Iterable[Mapping[str, str]], key: ServiceKey, named: Mapping[str, str], settings: Settings
) -> SilenceScope:
    """Exact conditions on the labels by which most firing alerts name the service. Pure.

    The labels of an alert count only if they identify the service: the namespace alone would also mute other
    alerts. Without such an alert the conditions are `named`, the labels that map to the service.
    """
    mapped = [(labels, _service(labels, settings)) for labels in firing]
    own = [labels for labels, found in mapped if found == key]
    subjects = [_subject(labels, settings) for labels in own]
    forms = Counter(one for one in subjects if _service(dict(one), settings) == key)
    form = max(sorted(forms), key=lambda one: forms[one], default=tuple(sorted(named.items())))
    matchers = tuple(Matcher(name=name, value=value) for name, value in form)

    def muted(labels: Mapping[str, str]) -> bool:
        return all(one.matches(labels.get(one.name, "")) for one in matchers)

    hit = sum(muted(labels) for labels in own)
    others = {
        str(found or labels.get("alertname", "an alert of no service"))
        for labels, found in mapped
        if found != key and muted(labels)
    }
    return SilenceScope(matchers=matchers, muted=hit, left=len(own) - hit, others=tuple(sorted(others)))


def _service(labels: Mapping[str, str], settings: Settings) -> ServiceKey | None:
    try:
        return service_of(labels, settings, None)
    except Unmapped:
        return None


def _subject(labels: Mapping[str, str], settings: Settings) -> tuple[tuple[str, str], ...]:
    """The labels of service and place, those of `ALERT_HOME_LABELS` included: they distinguish clusters."""
    kept = _OF_SUBJECT | {canonical_name(name) for name in settings.alert_home_labels}
    return tuple(sorted((name, value) for name, value in labels.items() if canonical_name(name) in kept))


class AlertmanagerSilenceWriter:
    """`SilenceWriter` over `POST /api/v2/silences` and `DELETE /api/v2/silence/{id}`."""

    def __init__(self, peer: HttpPeer) -> None:
        self._peer = peer

    @staticmethod
    def from_settings(settings: Settings) -> AlertmanagerSilenceWriter:
        """Raises `ConfigurationError` for settings that cannot work."""
        return AlertmanagerSilenceWriter(peer_of(settings))

    async def create(self, wanted: WantedSilence) -> None:
        body = msgspec.json.encode(
            {
                "matchers": [
                    {"name": one.name, "value": one.value, "isRegex": False, "isEqual": True}
                    for one in wanted.matchers
                ],
                "startsAt": wanted.starts_at,
                "endsAt": wanted.ends_at,
                "createdBy": AGENT_NAME,
                "comment": comment_of(wanted),
            }
        )
        try:
            reply = await self._peer.send("POST", "/api/v2/silences", json_body=body)
        except TransientError as error:
            raise UnknownOutcome(f"whether the silence was created is unknown: {error}") from None
        if reply.status >= 500:
            raise UnknownOutcome(str(self._peer.refusal(reply)))
        if not reply.ok:
            raise self._peer.refusal(reply)

    async def expire(self, silence_id: str) -> None:
        reply = await self._peer.send("DELETE", f"/api/v2/silence/{silence_id}")
        if not reply.ok and reply.status != _GONE:
            raise self._peer.refusal(reply)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._peer.aclose()


def peer_of(settings: Settings) -> HttpPeer:
    """The connection to Alertmanager; raises `ConfigurationError` without its address."""
    if settings.alertmanager_url is None:
        raise ConfigurationError("ALERTMANAGER_URL is not set")
    return HttpPeer(
        name="Alertmanager",
        setting="ALERTMANAGER_URL",
        url=settings.alertmanager_url,
        timeout_seconds=settings.alertmanager_timeout_seconds,
        bearer_token=settings.alertmanager_api_token,
    )
