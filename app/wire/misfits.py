"""Where in a YAML document a value stands that does not fit its type."""

from __future__ import annotations

import re

import msgspec

from app.agent.runbooks import Document, Place
from app.errors import ConfigurationError

_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")


def misfit(
    document: Document, error: msgspec.ValidationError, above: Place = (), note: str = ""
) -> ConfigurationError:
    """The complaint with file and line; `above` is the place of what was converted."""
    found = _WHERE.match(str(error))
    what, path = (found["what"], found["path"] or "") if found is not None else (str(error), "")
    place: Place = (
        *above,
        *(key or (int(index) if index.isdigit() else 0) for key, index in _STEP.findall(path)),
    )
    unknown = _UNKNOWN.search(what)
    if unknown is not None:
        return document.error((*place, unknown[1]), "unknown field", at_key=True)
    what = what.replace("`str` matching regex", "text of the form")
    return document.error(place, f"{what[:1].lower()}{what[1:]}{note}")
