"""The revisions of a Helm release, from the metadata of the Secrets that Helm keeps them in. Pure.

Helm writes one Secret of the type `helm.sh/release.v1` for each revision; its labels say
what the agent needs, and its content is never read.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from app.agent.ids import JsonObject
from app.agent.workload import ReleaseRecord
from app.connectors.kubernetes.fields import moment, text, texts
from app.connectors.kubernetes.mapping import is_label_value

_MOST = 10


def release_of(workload: JsonObject) -> tuple[str, str] | None:
    """Namespace and name of the release that wrote a workload; None where its annotations name none."""
    annotations = texts(workload, "metadata", "annotations")
    release = annotations.get("meta.helm.sh/release-name")
    home = annotations.get("meta.helm.sh/release-namespace") or text(workload, "metadata", "namespace")
    if not release or home is None or not is_label_value(release):
        return None
    return home, release


def selector_of(release: str) -> str:
    """The selector of the release's records."""
    return f"owner=helm,name={release}"


def release_records(items: Iterable[JsonObject]) -> tuple[ReleaseRecord, ...]:
    """The newest records, newest first."""
    found = [record for record in map(_record, items) if record is not None]
    return tuple(sorted(found, key=lambda one: one.revision, reverse=True)[:_MOST])


def _record(item: JsonObject) -> ReleaseRecord | None:
    labels = texts(item, "metadata", "labels")
    number, status = labels.get("version", ""), labels.get("status")
    modified = _moment(labels.get("modifiedAt", ""))
    begun = moment(item, "metadata", "creationTimestamp") or modified
    if not (number.isascii() and number.isdigit()) or status is None or begun is None:
        return None
    return ReleaseRecord(revision=int(number[:9]), status=status[:40], begun_at=begun, at=modified or begun)


def _moment(seconds: str) -> datetime | None:
    """A time that Helm writes in seconds since 1970."""
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= 11):
        return None
    return datetime.fromtimestamp(int(seconds), tz=UTC)
