"""`heal config show`: the settings in force and where each comes from, with secrets left out."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, Field
from rich.table import Table
from rich.text import Text

from app.agent.evidence.format import counted
from app.cli.commands.output import printable
from app.config import Settings
from app.redaction import redacted
from app.settings.config_file import read_config
from app.settings.secret_files import named_files
from app.settings.sources import env_file_values

HIDDEN = "(set, not shown)"


class SettingView(BaseModel):
    """One setting in force."""

    name: str
    value: object = Field(description="As it is written in JSON; secrets are not shown.")
    source: str = Field(
        description="environment, .env, the path of CONFIG_FILE or of the file of a secret, or default."
    )


def in_force(settings: Settings, env_file: Path) -> list[SettingView]:
    """Every setting, in the order of its documentation."""
    named = [
        {name.lower(): value for name, value in one.items() if value}
        for one in (os.environ, env_file_values(env_file))
    ]
    environment, file = named
    shared = read_config(settings.config_file, Settings) if settings.config_file else {}
    files = named_files(Settings, environment, file, shared)
    values = settings.model_dump(mode="json")
    found = []
    for name, field in type(settings).model_fields.items():
        source = "environment" if name in environment else ".env" if name in file else "default"
        if source == "default" and name in files:
            source = files[name]
        elif source == "default" and name in shared:
            source = str(settings.config_file)
        secret = "SecretStr" in str(field.annotation)
        given = getattr(settings, name)
        value = HIDDEN if secret and given else _ordered(values[name])
        found.append(SettingView(name=name.upper(), value=value, source=source))
    return found


def checked(settings: Settings, env_file: Path) -> str:
    """What was valid, in one line."""
    given = [one for one in in_force(settings, env_file) if one.source != "default"]
    sources = ", ".join(dict.fromkeys(one.source for one in given)) or "defaults only"
    return f"The configuration is valid: {counted(len(given), 'setting')} given ({sources})."


def _ordered(value: object) -> object:
    """Sets have no order: sorted, so that two listings compare. Passwords in addresses are removed."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return sorted(redacted(one) for one in value)
    return redacted(value) if isinstance(value, str) else value


def table(settings: Sequence[SettingView]) -> Table:
    """One setting a row."""
    found = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("SETTING", "VALUE", "FROM"):
        found.add_column(heading, overflow="fold")
    for one in settings:
        value = one.value if isinstance(one.value, str) else json.dumps(one.value, ensure_ascii=False)
        found.add_row(one.name, Text(printable("" if one.value is None else value)), one.source)
    return found
