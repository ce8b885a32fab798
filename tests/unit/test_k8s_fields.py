"""Fields of API objects are read whatever shape they arrive in."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.ids import Json
from app.connectors.kubernetes import fields as fields

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_shape_raises(value: Json) -> None:
    """Hostile objects read as empty ones."""
    assert isinstance(fields.mapping(value, "a", "b"), dict)
    assert all(isinstance(item, dict) for item in fields.objects(value, "a", "b"))
    assert fields.text(value, "a", "b") != ""
    assert all(isinstance(item, str) for item in fields.texts(value, "a").values())
    assert not isinstance(fields.number(value, "a"), bool)
    assert fields.flag(value, "a") in (True, False)
    fields.moment(value, "a")
    assert len(fields.digest(value)) == 64


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-02-20T17:00:00Z", datetime(2026, 2, 20, 17, tzinfo=UTC)),
        ("2026-02-20T17:00:00.123456Z", datetime(2026, 2, 20, 17, 0, 0, 123456, tzinfo=UTC)),
        ("2026-02-20T19:00:00+02:00", datetime(2026, 2, 20, 17, tzinfo=UTC)),
        ("2026-02-20T17:00:00", None),
        ("yesterday", None),
    ],
)
def test_times_are_aware_or_none(written: str, read: datetime | None) -> None:
    """A time without a zone is not guessed at."""
    assert fields.moment({"at": written}, "at") == read


def test_the_digest_ignores_order_and_nulls_and_nothing_else() -> None:
    """Two servers that write the same object differently agree on its hash."""
    assert fields.digest({"a": 1, "b": None, "c": [1]}) == fields.digest({"c": [1], "a": 1})
    assert fields.digest({"a": [1, 2]}) != fields.digest({"a": [2, 1]})
    assert fields.digest({"a": ""}) != fields.digest({})
