"""The version of the installed package, as `heal --version` and `GET /version` show it."""

from __future__ import annotations

from importlib import metadata

_DISTRIBUTION = "self-healing-devops-agent"


def package_version() -> str:
    """The version in the metadata of the installed distribution, such as `0.1.0`."""
    return metadata.version(_DISTRIBUTION)
