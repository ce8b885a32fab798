"""Amounts as Kubernetes writes them. Pure."""

from __future__ import annotations

import re
from decimal import Decimal

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|[kMGTPE]|[KMGTPE]i)?")
_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** (at + 1) for at, unit in enumerate("kMGTPE")},
    **{f"{unit}i": Decimal(1024) ** (at + 1) for at, unit in enumerate("KMGTPE")},
}


def as_bytes(quantity: str | None) -> int | None:
    """`128Mi` in bytes; None for what is no such amount."""
    found = _QUANTITY.fullmatch(quantity or "")
    return None if found is None else int(Decimal(found[1]) * _FACTORS[found[2] or ""])


def as_millis(quantity: str | None) -> int | None:
    """`250m` or `2` in thousandths; None for what is no such amount."""
    found = _QUANTITY.fullmatch(quantity or "")
    return None if found is None else int(Decimal(found[1]) * _FACTORS[found[2] or ""] * 1000)
