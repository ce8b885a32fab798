"""Secrets from files: NAME_FILE names a file with the value of NAME, as container platforms mount them.

Only secret settings have a NAME_FILE, in the environment, in `.env` or in CONFIG_FILE. Both names
together are an error, so that it is never unclear which value is in force. Messages never
repeat what a file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from app.bounds import regular_file
from app.settings.sources import WrongName, decoded, file_setting, secret_settings

MAX_BYTES = 64 * 1024
"""More than any key or list of properties needs; a larger file is probably another one."""


class SecretFiles(PydanticBaseSettingsSource):
    """The secrets whose files are named; raises `WrongName` with a line for each that cannot be used."""

    def __init__(self, settings_cls: type[BaseSettings], *named_in: Mapping[str, str | None]) -> None:
        """`named_in`: the environment and `.env`, in the order of precedence."""
        super().__init__(settings_cls)
        self._named_in = named_in

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - given
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        given = {name for one in self._named_in for name, value in one.items() if value}
        files = named_files(self.settings_cls, *self._named_in)
        wrong = [both_given(name) for name in files if name in given]
        if wrong:
            raise WrongName("\n".join(wrong))
        return secrets_of(self.settings_cls, files)


def named_files(settings_cls: type[BaseSettings], *named_in: Mapping[str, Any]) -> dict[str, str]:
    """The path of each secret that is read from a file; the first that names it wins."""
    found = {}
    for name in sorted(secret_settings(settings_cls)):
        path = next((one[file_setting(name)] for one in named_in if one.get(file_setting(name))), None)
        if path is not None:
            found[name] = path
    return found


def both_given(name: str) -> str:
    """The error of a secret that is given itself and as a file."""
    upper = name.upper()
    return f"{upper}: {upper} and {file_setting(name).upper()} are both set; remove one of them"


def secrets_of(settings_cls: type[BaseSettings], files: Mapping[str, str]) -> dict[str, Any]:
    """What the files hold, by setting; `WrongName` with a line for each that cannot be used."""
    found, wrong = {}, []
    for name, path in files.items():
        try:
            field = settings_cls.model_fields[name]
            text = _secret_in(path, one_line=_plain(field))
            found[name] = text if _plain(field) else decoded(field, text)
        except ValueError as error:
            wrong.append(f"{file_setting(name).upper()}: {error}")
    if wrong:
        raise WrongName("\n".join(wrong))
    return found


def _plain(field: FieldInfo) -> bool:
    """Whether the secret is one value; a list or mapping may have several lines."""
    return not str(field.annotation).startswith(("dict", "tuple"))


def _secret_in(path: object, *, one_line: bool) -> str:
    """The text without byte order mark and last line break; ValueError, which never repeats the text."""
    if not isinstance(path, str):
        raise ValueError("is not a path")  # noqa: TRY004 - a wrong value of a setting, like the others
    try:
        content = regular_file.read(path, MAX_BYTES)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if content.writable_by_all:
        raise ValueError(f"{path} can be written by every user; remove that right: chmod o-w {path}")
    try:
        # Editors and shells of Windows put a byte order mark before the text.
        text = content.data.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    if not text.strip():
        raise ValueError(f"{path} is empty")
    if one_line and any(ord(one) < 32 or ord(one) == 127 for one in text):
        raise ValueError(f"{path} has a line break or another control character within the value")
    return text
