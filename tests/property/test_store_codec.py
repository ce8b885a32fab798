"""Every model that is stored comes back as it was, and old records stay readable."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.models import Alert, Change, ConfigChange, Deploy, Disposition, MetricSample, Outcome, Snapshot
from app.agent.ports.store.signals import Accepted, ServiceLevels
from app.errors import Invalid, PermanentError
from app.store.database import codec
from app.store.database.codec import IncidentBody, IntentBody

TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
LEAVES: Mapping[object, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    type(None): st.none(),
    timedelta: st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)),
    datetime: st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds are naive here
}
JSON_OBJECTS = st.dictionaries(
    TEXT,
    st.recursive(
        st.one_of(st.none(), st.booleans(), LEAVES[int], LEAVES[float], TEXT),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of an annotated type, with the texts and numbers that a database can keep."""
    if kind in LEAVES:
        return LEAVES[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return st.one_of([values_of(each) for each in arguments])
    if origin is tuple and Ellipsis not in arguments:
        return st.tuples(*[values_of(each) for each in arguments])
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=3)
    if isinstance(kind, typing.NewType):
        return values_of(kind.__supertype__)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    hints = typing.get_type_hints(kind)
    fields = msgspec.structs.fields(kind) if issubclass(kind, msgspec.Struct) else dataclasses.fields(kind)
    return st.builds(kind, **{field.name: values_of(hints[field.name]) for field in fields})


STORED = [IncidentBody, IntentBody, ServiceLevels, Change, Outcome, Disposition, Accepted]


@pytest.mark.parametrize("kind", [*STORED, *codec.PAYLOADS.values()])
@given(data=st.data())
def test_a_stored_value_is_read_back_equal(kind: type[Any], data: st.DataObject) -> None:
    """Writing and reading is the identity for every model with finite numbers and storable text."""
    value = data.draw(values_of(kind))
    assert codec.read(kind, codec.loads(codec.dumps(value))) == value
    assert codec.read(kind, codec.writable(kind, value)) == value


@given(body=JSON_OBJECTS, token=TEXT)
def test_a_snapshot_keeps_its_body_to_the_letter(body: dict[str, Any], token: str) -> None:
    """An undo puts back exactly this, integers, floats and nulls included."""
    snapshot = codec.read_snapshot(
        codec.loads(
            codec.dumps(
                {"ref": {"kind": "Deployment", "namespace": "n", "name": "x"}, "token": token, "body": body}
            )
        )
    )
    assert snapshot is not None
    assert snapshot.body == body
    assert codec.dumps(snapshot.body) == codec.dumps(body)
    assert codec.read_snapshot(codec.loads(codec.dumps(snapshot))) == snapshot


@given(value=st.dictionaries(st.text(st.characters()), st.text(st.characters()) | st.floats()))
def test_no_text_from_outside_stops_a_write(value: dict[str, Any]) -> None:
    """NUL, half surrogates, NaN and infinity are replaced, once and for all."""
    text = codec.dumps(value)
    assert "\\u0000" not in text.replace("\\\\", "")
    text.encode()
    assert codec.dumps(codec.loads(text)) == text


def test_a_record_of_an_older_version_takes_defaults() -> None:
    """Fields added since are missing, fields dropped since are skipped."""
    assert codec.read(MetricSample, {"error_rate": 1, "no_longer_known": {"x": 1}}) == MetricSample(
        error_rate=1.0
    )
    assert codec.read(Deploy, {"version": "1", "status": "failed"}).irreversible is False
    assert codec.read(IncidentBody, {}) == IncidentBody()
    assert codec.read(ConfigChange, {"summary": "x"}).kind.value == "config"


def test_a_record_that_cannot_be_read_is_permanent() -> None:
    """The message names what could not be read."""
    with pytest.raises(PermanentError, match="stored Alert"):
        codec.read(Alert, {"name": "x"})
    with pytest.raises(PermanentError, match="stored Snapshot"):
        codec.read_snapshot({"ref": {"kind": "a", "namespace": "b", "name": "c"}, "token": "t", "body": 5})
    with pytest.raises(PermanentError, match="cannot be read"):
        codec.read_snapshot({})
    assert codec.read_snapshot(None) is None
    assert codec.read_optional(Snapshot, None) is None


def test_a_value_that_could_not_be_read_back_is_refused() -> None:
    """A NaN confidence would become null, which no diagnosis allows: better found before it is stored."""
    body = codec.read(
        IncidentBody,
        {
            "diagnosis": {
                "at": "2026-01-01T00:00:00Z",
                "hypotheses": [{"cause": "unknown", "confidence": 0.5, "rule": "r", "evidence_for": []}],
            }
        },
    )
    assert body.diagnosis is not None
    bad = dataclasses.replace(
        body,
        diagnosis=dataclasses.replace(
            body.diagnosis,
            hypotheses=(dataclasses.replace(body.diagnosis.best, confidence=float("nan")),),
        ),
    )
    with pytest.raises(Invalid, match="IncidentBody"):
        codec.writable(IncidentBody, bad)
