"""Settings from one YAML file, for a team that keeps them under version control.

CONFIG_FILE names it, in the environment or in `.env`; both override it. Keys are the names of
settings in lower case, values are what the setting is as JSON: lists and mappings stay readable.
A secret is named by the file that holds it, `slack_bot_token_file`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from app.agent.runbooks import Document, NoDocument
from app.bounds import regular_file
from app.errors import ConfigurationError
from app.settings.secret_files import both_given, secrets_of
from app.settings.sources import WrongName, file_setting, file_settings, secret_settings
from app.spelling import nearest

SETTING = "config_file"

MAX_BYTES = 1024 * 1024
"""About 25,000 lines."""


class ConfigFile(PydanticBaseSettingsSource):
    """The values of the file; raises `WrongName`, naming file and line, for what cannot be used."""

    def __init__(self, settings_cls: type[BaseSettings], *named_in: Mapping[str, str | None]) -> None:
        """`named_in`: what may name the file, in the order of precedence."""
        super().__init__(settings_cls)
        self._path = config_path(*named_in)
        self._named_in = named_in

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - given
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        values = read_config(self._path, self.settings_cls)
        names = secret_settings(self.settings_cls)
        paths = {name: values.pop(file_setting(name)) for name in names if file_setting(name) in values}
        overridden = {name for one in self._named_in for name, value in one.items() if value}
        needed = {
            name: path for name, path in sorted(paths.items()) if not overridden & {name, file_setting(name)}
        }
        return {**values, **secrets_of(self.settings_cls, needed)}


def config_path(*named_in: Mapping[str, str | None]) -> Path | None:
    """The file that is named; None without one."""
    given = next((found for one in named_in if (found := one.get(SETTING))), None)
    return None if given is None else Path(given)


def read_config(path: Path, settings_cls: type[BaseSettings]) -> dict[str, Any]:
    """What the file sets, without what is null; `WrongName` for what cannot be used.

    Secrets that it names by their files are not read yet.
    """
    known = frozenset(settings_cls.model_fields) | file_settings(settings_cls)
    try:
        raw = regular_file.read(path, MAX_BYTES).data
        document = Document(path, "mapping of settings to values", raw=raw, secret=True)
    except regular_file.Unsuitable as error:
        raise WrongName(f"CONFIG_FILE: {error}") from None
    except OSError as error:
        raise WrongName(f"CONFIG_FILE: {path} cannot be read: {error.strerror}") from None
    except NoDocument:
        return {}
    except ConfigurationError as error:
        raise WrongName(str(error)) from None
    values = document.content
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise WrongName(f"CONFIG_FILE: {path} is not a mapping of settings to values")
    wrong = []
    for name in values:
        if name == SETTING or name not in known:
            likely = nearest(name, known - {SETTING})
            said = f"{name} is not a setting" + (f"; use {likely}" if likely else "")
            wrong.append(str(document.key_error((name,), said)))
    wrong += [
        f"{path}: {both_given(name)}"
        for name in sorted(secret_settings(settings_cls) & values.keys())
        if values[name] is not None and values.get(file_setting(name)) is not None
    ]
    if wrong:
        raise WrongName("\n".join(wrong))
    return {name: value for name, value in values.items() if value is not None}
