"""Reads `.env.example`, the one place that explains the settings, and writes `docs/configuration.md` from it.

It also writes the schema of the configuration file, `docs/config.schema.json`.

Run as `python -m scripts.settings` after a change; a test fails while the two differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.config import Settings
from app.settings.live_names import LIVE
from app.settings.sources import file_setting, secret_settings

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / ".env.example"
USE_CASES = ROOT / "scripts" / "use_cases.md"
PAGE = ROOT / "docs" / "configuration.md"
SCHEMA = ROOT / "docs" / "config.schema.json"

_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
_HEADING = re.compile(r"# -{10,} (.+)")
_INTRODUCTION = """\
# Configuration

Settings come from the environment, from a file `.env` in the working directory, or from a YAML file that
`CONFIG_FILE` names ([one file](#one-file)); the first of them wins, and an empty value means "not set". Copy
`.env.example` to start: a plain copy keeps every default. It also overrides `CONFIG_FILE` for every setting
that has a value in it; to use `CONFIG_FILE`, remove those lines from `.env`. A wrong value stops the start
with a message that names the setting, and where it is JSON the path within it. So does a line of `.env` that
is not `NAME=value`, and a name that is probably a mistyped setting: one within two edits of a setting, in
`.env`, or in the environment if it has at least ten characters and an underscore. List names of other
programs in `UNRELATED_NAMES`; those that Kubernetes sets for Services are known. Any other unknown name in
`.env` is a warning at start and in `heal doctor`. This page is written from `.env.example` by `python -m
scripts.settings`.

{use_cases}

## One file

A team can keep the settings in one YAML file under version control, and name it with `CONFIG_FILE`. Keys are
the names of settings in lower case; lists and mappings are written as such, without quoting JSON:

```yaml
dry_run: true
enabled_actions: [notify, restart]
slo_max_error_rate: 0.02
alert_triggers:
  HighErrorRate: high_error_rate
freeze_windows:
  - {name: weekend, cron: "0 18 * * FRI", hours: 62, time_zone: Europe/Berlin}
```

A value that versions of YAML read differently is refused with file, line and column, here as in
`SERVICES_FILE`, runbooks and scenarios: `010` (8 or 10), `yes` and `off`, `1:30`, `1e3`, a date. Write
decimal numbers, `true` or `false`, and put texts that look like one of these in quotes. Anchors, aliases,
tags and duplicate keys are refused too, and so are files larger than 1 MiB, pipes and devices.

`docs/config.schema.json` is its JSON Schema, for editors and reviews. Keep secrets out of it: name their
files ([secrets](#secrets)), or pass them in the environment, which overrides the file, as `.env` does. `heal
config check FILE` checks a file and names the line of each unknown setting and the setting of each wrong
value, and `heal config show` shows where each value comes from.

A running agent looks at the file every two seconds, and at once on SIGHUP. These settings take effect without
a restart: {live}. The log names each that changed. Any other changed setting takes effect at the next start;
until then the log and `/readyz` name it as one that needs a restart. What the environment or `.env` sets is
not changed by the file.

A file that became invalid or cannot be read changes nothing: the last valid content stays in force, the log
says so once, and `/readyz` shows the mistake while the agent stays ready. A new process does not start with
it, and `heal doctor` names the line or the setting. Every process reads its own copy: change them on all
machines, or mount the file from one place, as the Helm chart does with `config`.

## Secrets

Every secret setting can be read from a file, as container platforms mount secrets: instead of
`SLACK_BOT_TOKEN` set `SLACK_BOT_TOKEN_FILE=/run/secrets/slack-bot-token`. This works for
{secrets}. `NAME_FILE` is set in the environment, in `.env`, or in lower case in the YAML file.

- The file is read once at the start; restart the agent after a rotation. One line break at its end and a
  byte order mark at its start are left out. Links are followed.
- A file that is missing, not readable, empty, not UTF-8, larger than 64 KiB, no regular file, or writable by
  every user stops the start with a message that names the setting and the path; so does a line break within
  the value, except in settings that hold JSON. The message never shows the content.
- `NAME` and `NAME_FILE` together are an error. In the environment or `.env` either of them overrides both in
  the YAML file.
- The value is [redacted](audit.md#credentials) wherever the value of `NAME` would be.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as `.env.example` documents it."""

    name: str
    default: str
    meaning: str
    """The comment right above it; empty when there is none."""
    section: str


def documented(text: str) -> Iterator[Setting]:
    """Every assignment of an `.env` file with the comment above it; ValueError for any other line."""
    section, comment = "", list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        heading, assignment = _HEADING.fullmatch(line), _ASSIGNMENT.fullmatch(line)
        if heading:
            section, comment = heading[1], []
        elif line.startswith("#"):
            comment.append(line.removeprefix("#").strip())
        elif assignment:
            name, default = assignment.groups()
            yield Setting(name=name, default=default, meaning=" ".join(comment), section=section)
            comment = []
        elif not line:
            comment = []
        else:
            raise ValueError(f"line {number} is neither a comment nor NAME=value: {line!r}")


def page(settings: Iterator[Setting]) -> str:
    """The settings as Markdown, one table for each section."""
    secrets = ", ".join(f"`{name.upper()}`" for name in sorted(secret_settings(Settings)))
    live = ", ".join(f"`{name.upper()}`" for name in sorted(LIVE))
    lines, section = (
        [
            _INTRODUCTION.rstrip()
            .replace("{use_cases}", USE_CASES.read_text().rstrip())
            .replace("{secrets}", secrets)
            .replace("{live}", live)
        ],
        "",
    )
    for setting in settings:
        if setting.section != section:
            section = setting.section
            lines += [
                "",
                f"## {section[0].upper()}{section[1:]}",
                "",
                "| setting | default | meaning |",
                "|---|---|---|",
            ]
        default = f"`{_cell(setting.default)}`" if setting.default else "not set"
        lines.append(f"| `{setting.name}` | {default} | {_cell(setting.meaning)} |")
    return "\n".join(lines) + "\n"


def schema() -> str:
    """The JSON Schema of CONFIG_FILE: every setting but that one, with its type, bounds and meaning."""
    meanings = {one.name.lower(): one.meaning for one in documented(EXAMPLE.read_text())}
    found = Settings.model_json_schema()
    properties = {
        name: {**value, "description": meanings[name]}
        for name, value in found["properties"].items()
        if name != "config_file"
    }
    properties |= {
        file_setting(name): {
            "type": ["string", "null"],
            "description": f"The path of a file that holds {name.upper()}.",
        }
        for name in secret_settings(Settings)
    }
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of the Self-Healing DevOps Agent",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": found.get("$defs", {}),
    }
    return json.dumps(whole, indent=2, sort_keys=True) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(documented(EXAMPLE.read_text())))
    SCHEMA.write_text(schema())
