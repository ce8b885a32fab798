"""The API server's audit log: every write by any client, with dry runs marked.

Tests count through it how many real changes the agent made, across restarts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec

POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- {level: None, verbs: [get, list, watch]}
- {level: None, resources: [{group: "", resources: [events, nodes/status]}]}
- {level: None, resources: [{group: events.k8s.io, resources: [events]}]}
- {level: None, resources: [{group: coordination.k8s.io, resources: [leases]}]}
- {level: None, resources: [{group: authentication.k8s.io}, {group: authorization.k8s.io}]}
- {level: Metadata}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One answered write request."""

    id: str
    at: datetime
    """When the answer was complete."""
    user: str
    user_agent: str
    verb: str
    """`create`, `update`, `patch`, `delete` or `deletecollection`."""
    resource: str
    """Plural, with the subresource where there is one: `deployments/scale`."""
    namespace: str
    name: str
    code: int
    """HTTP status; the write had no effect from 400 on."""
    dry_run: bool
    field_manager: str | None
    """As given in the request; None leaves it to the user agent."""
    uri: str

    @property
    def effective(self) -> bool:
        """Whether it changed something: accepted, and no dry run."""
        return not self.dry_run and self.code < 400


class _User(msgspec.Struct):
    username: str = ""


class _Object(msgspec.Struct):
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""


class _Status(msgspec.Struct):
    code: int = 0


class _Line(msgspec.Struct, rename="camel"):
    audit_id: str = msgspec.field(name="auditID")
    stage: str
    verb: str
    stage_timestamp: datetime
    request_uri: str = msgspec.field(name="requestURI")
    user: _User = msgspec.field(default_factory=_User)
    user_agent: str = ""
    object_ref: _Object = msgspec.field(default_factory=_Object)
    response_status: _Status = msgspec.field(default_factory=_Status)


_decoder = msgspec.json.Decoder(_Line)


def read_audit_log(path: Path) -> tuple[AuditEvent, ...]:
    """All writes so far, oldest answer first; a line still being written is left for the next time."""
    return tuple(_events(path.read_bytes())) if path.exists() else ()


def _events(content: bytes) -> Iterator[AuditEvent]:
    for raw in content.split(b"\n")[:-1]:
        line = _decoder.decode(raw)
        query = parse_qs(urlsplit(line.request_uri).query)
        ref = line.object_ref
        yield AuditEvent(
            id=line.audit_id,
            at=line.stage_timestamp,
            user=line.user.username,
            user_agent=line.user_agent,
            verb=line.verb,
            resource=f"{ref.resource}/{ref.subresource}" if ref.subresource else ref.resource,
            namespace=ref.namespace,
            name=ref.name,
            code=line.response_status.code,
            dry_run="All" in query.get("dryRun", []),
            field_manager=query.get("fieldManager", [None])[0],
            uri=line.request_uri,
        )
