"""Writes the generated files of the Helm chart: the rights of each action, the version and the alert rules.

Run as `python -m scripts.chart` after a change of the actions, of their rights or of
`deploy/monitoring/alerts.yaml`; a test fails while they differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from app.agent.models import ActionName
from app.config import Settings
from app.connectors.kubernetes.access import Access, needed_rights, supplementary_rights
from app.version import package_version

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy" / "helm" / "self-healing-devops-agent"
RULES = ROOT / "deploy" / "monitoring" / "alerts.yaml"


ENABLED_BY_NAME = frozenset(ActionName) - {ActionName.RESTORE}
"""Actions that ENABLED_ACTIONS may name; an undo needs no right besides that of what it undoes."""


def generated() -> dict[Path, str]:
    """Each generated file and its content."""
    chart = (CHART / "Chart.yaml").read_text(encoding="utf-8")
    version = package_version()
    return {
        CHART / "files" / "rights.json": _rights(),
        CHART / "files" / "alerts.yaml": RULES.read_text(encoding="utf-8"),
        CHART / "Chart.yaml": re.sub(
            r"^(version|appVersion): .*$", lambda found: f"{found[1]}: {version}", chart, flags=re.MULTILINE
        ),
    }


def _rights() -> str:
    """What reading needs, and what each action and each setting needs besides."""
    read = needed_rights(_with())
    found = {
        "read": _as_json([*read, *supplementary_rights()]),
        "actions": {
            name.value: _as_json(one for one in needed_rights(_with(name)) if one not in read)
            for name in sorted(ENABLED_BY_NAME)
        },
        "settings": {
            name.upper(): _as_json(one for one in needed_rights(_with(**{name: True})) if one not in read)
            for name in _WITH_RIGHTS
        },
        "everywhere": {
            name.upper(): _as_json(one for one in needed_rights(_with(**{name: True})) if one not in read)
            for name in _WITH_RIGHTS_EVERYWHERE
        },
    }
    return json.dumps(found, indent=1) + "\n"


_WITH_RIGHTS = ("helm_releases", "log_evidence", "watch_jobs")
"""Settings that need rights of their own."""
_WITH_RIGHTS_EVERYWHERE = ("flux_enabled",)
"""Settings that need rights of their own in all namespaces, whichever are watched."""


def _with(*actions: ActionName, **settings: bool) -> Settings:
    return Settings(_env_file=None, enabled_actions=frozenset(actions), **settings)  # type: ignore[arg-type] # switches


def _as_json(rights: Iterable[Access]) -> list[dict[str, str]]:
    found = [{"verb": one.verb, "group": one.group, "resource": one.resource} for one in rights]
    return [one for number, one in enumerate(found) if one not in found[:number]]


if __name__ == "__main__":
    for path, content in generated().items():
        path.write_text(content, encoding="utf-8")
