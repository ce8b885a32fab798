"""What is wrong with a setting, in one line: its name, the path within it, and the fix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode, SettingsError

from app.settings.values import example, what_is_wrong

_EXTRA = "Extra inputs are not permitted"
_FIELD = re.compile(r'for field "(?P<name>\w+)"')


def at_most(**two: float) -> None:
    """`ValueError` where the first of two settings is above the second."""
    (low, lower), (high, upper) = two.items()
    if lower > upper:
        raise ValueError(
            f"{low}={lower:.15g} is above {high}={upper:.15g}: lower the first or raise the second"
        )


def undecodable(error: SettingsError) -> str:
    """The setting with invalid JSON and the position; the value may be a secret."""
    field = _FIELD.search(str(error))
    name = field["name"].upper() if field else "a setting"
    wrong = str(error.__cause__ or error).rstrip(".")
    return f"{name}: {wrong}{example(name.lower())}"


def explained(error: Mapping[str, object], settings: Mapping[str, FieldInfo]) -> str:
    """One wrong value with the setting's path; entries of a list with commas have no path of their own."""
    where = cast("tuple[int | str, ...]", error["loc"])
    setting = str(where[0]) if where else ""
    field = settings.get(setting)
    secret = field is not None and "SecretStr" in str(field.annotation)
    if field is not None and NoDecode in field.metadata:
        where = where[:1]
    return located(where, what_is_wrong(error, setting, secret=secret))


def located(where: tuple[int | str, ...], message: str) -> str:
    """An error of a setting: its name, the path within it, and the message."""
    name = ".".join([str(part).upper() if index == 0 else str(part) for index, part in enumerate(where)])
    words = message.removeprefix("Value error, ")
    if words == _EXTRA:
        words = "unknown field"
    return f"{name}: {words}" if name else words
