"""Shared parts of the tables: kinds of columns, names of constraints, and two instants of the queue."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, MetaData, TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant, stored and given back in UTC.

    SQLite keeps no zone: there the naive UTC time is stored, in a form whose
    text order is the order of time.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(f"the time {value.isoformat()} has no zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002 - the signature is SQLAlchemy's
    ) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


RowNumber = BigInteger().with_variant(Integer(), "sqlite")
"""An increasing row number: SQLite generates it only for a column type named exactly INTEGER."""

JsonText = JSON(none_as_null=True)

AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
"""Due by every process's clock, however far two of them are apart."""

AFTER_KNOWN = datetime(1970, 1, 2, tzinfo=UTC)
"""Also due; new incidents of services unknown to the cluster come after those of known ones."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
