"""Where settings come from: the environment and `.env`, read strictly.

Used by `Settings` alone. Values that are JSON are decoded as strictly as JSON from
outside, so that a key that stands twice is an error; names that were probably
mistyped stop the start.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsError,
)

from app.bounds import regular_file
from app.errors import Invalid
from app.settings.names import (
    ESCAPE,
    listed,
    mistyped_in_environment,
    mistyped_in_file,
    unknown_in_file,
)
from app.settings.values import shown
from app.wire.strict_json import decode

MAX_ENV_FILE_BYTES = 1024 * 1024
"""Many times the size of `.env.example`, which documents every setting."""


class WrongName(SettingsError):
    """Names that are probably mistyped settings, and lines of `.env` that set nothing; one line for each."""


class WrongJson(ValueError):
    """The value of a setting is not the JSON that it must be; the message says where and why."""


def decoded(field: FieldInfo, value: Any) -> Any:
    """A value as it is written in the environment, read as JSON where the setting is JSON; `WrongJson`."""
    if NoDecode in field.metadata or not isinstance(value, str):
        return value
    try:
        return decode(value.encode())
    except Invalid as error:
        given = "the value" if "SecretStr" in str(field.annotation) else shown(value)
        raise WrongJson(f"{given} is not valid JSON: {error}") from error


class StrictEnvironment(EnvSettingsSource):
    """The environment, with strict JSON."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The value; no question about the type of a setting that is not set, as most are not."""
        if self.env_vars.get(field_name) is None:
            return None, field_name, True
        return super().get_field_value(field, field_name)

    def prepare_field_value(
        self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool
    ) -> Any:
        """The decoded value; no setting is put together from several names."""
        return (
            None if value is None else super().prepare_field_value(field_name, field, value, value_is_complex)
        )

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ARG002 - given
        return decoded(field, value)


class BoundedEnvFile(DotEnvSettingsSource):
    """`.env` as far as it is a file of a usual size; raises `WrongName` for any other."""

    def _read_env_files(self) -> Mapping[str, str | None]:
        """The names in lower case, as the library writes them; empty without a file."""
        if not isinstance(self.env_file, str | Path):
            return {}
        values = env_file_values(Path(self.env_file))
        return {name.lower(): value for name, value in values.items() if value or not self.env_ignore_empty}


class StrictEnvFile(BoundedEnvFile, StrictEnvironment):
    """`.env`, with strict JSON."""


def env_file_values(path: Path) -> dict[str, str | None]:
    """What a file in the form of `.env` sets, empty if there is none; `WrongName` if it cannot be read."""
    return dotenv_values(stream=io.StringIO(_env_file_text(path)))


def _env_file_text(path: Path) -> str:
    """What the file holds, without a byte order mark: it would be part of the first name."""
    try:
        return regular_file.read(path, MAX_ENV_FILE_BYTES).data.decode("utf-8").removeprefix("\ufeff")
    except FileNotFoundError:
        return ""
    except regular_file.Unsuitable as error:
        raise WrongName(str(error)) from None
    except OSError as error:
        raise WrongName(f"{path} cannot be read: {error.strerror}") from None


class NoMistypedNames(PydanticBaseSettingsSource):
    """Gives no value: raises `WrongName` where the others hold a name that is nearly a setting."""

    def __init__(
        self, settings_cls: type[BaseSettings], environment: EnvSettingsSource, file: DotEnvSettingsSource
    ) -> None:
        super().__init__(settings_cls)
        self._environment = environment.env_vars
        self._file = file.env_vars
        self._path = file.env_file

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - given
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        known = known_names(self.settings_cls)
        unrelated = _unrelated(self._environment, self._file)
        wrong = [
            *unreadable_lines(self._path),
            *mistyped_in_file(self._file, known, unrelated),
            *mistyped_in_environment(self._environment, known, unrelated),
        ]
        if wrong:
            raise WrongName("\n".join(wrong))
        return {}


def unreadable_lines(path: object) -> Iterator[str]:
    """One sentence for each line of the file that is no `NAME=value`; its text may be a secret.

    The library that reads the file skips such a line, and with it a limit or an approval.
    """
    if not isinstance(path, str | Path):
        return
    for one in parse_stream(io.StringIO(_env_file_text(Path(path)))):
        if one.error or (one.key is not None and one.value is None):
            where = f"{path}, line {one.original.line}"
            yield f"{where}: sets nothing; write NAME=value, with every quote closed"


def known_names(settings_cls: type[BaseSettings]) -> frozenset[str]:
    """Every setting as it is written in the environment, the files of secrets included."""
    return frozenset(name.upper() for name in (*settings_cls.model_fields, *file_settings(settings_cls)))


@lru_cache
def secret_settings(settings_cls: type[BaseSettings]) -> frozenset[str]:
    """The settings that may be read from files; lower case."""
    return frozenset(
        name for name, field in settings_cls.model_fields.items() if "SecretStr" in str(field.annotation)
    )


def file_setting(name: str) -> str:
    """What names the file of a secret setting."""
    return f"{name}_file"


def file_settings(settings_cls: type[BaseSettings]) -> frozenset[str]:
    """Every name that names the file of a secret; lower case."""
    return frozenset(map(file_setting, secret_settings(settings_cls)))


def unknown_names(settings_cls: type[BaseSettings]) -> tuple[str, ...]:
    """The names in `.env` that are no setting; the file is read again."""
    environment, file = EnvSettingsSource(settings_cls), BoundedEnvFile(settings_cls)
    unrelated = _unrelated(environment.env_vars, file.env_vars)
    return unknown_in_file(file.env_vars, known_names(settings_cls), unrelated)


def _unrelated(environment: Mapping[str, str | None], file: Mapping[str, str | None]) -> frozenset[str]:
    name = ESCAPE.lower()
    return listed(environment.get(name) or file.get(name) or "")
