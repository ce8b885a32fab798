"""Finds the files that come with the agent beside its code: runbooks, policies and their schema."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_SHARED = Path("share", "self-healing-devops-agent")
"""Below the data folder of an environment: where a wheel puts them."""
_ROOT = Path(__file__).resolve().parents[2]
"""The root of a source tree, or the folder in which packages are installed."""


def shipped(name: str) -> Path:
    """The file or folder of that name, whatever the working directory; the first place where it is.

    A path that does not exist where the installation is incomplete: it names the
    place in the environment.
    """
    places = list(_places(name))
    return next((place for place in places if place.exists()), places[-1])


def _places(name: str) -> Iterator[Path]:
    if (_ROOT / "pyproject.toml").is_file():
        yield _ROOT / name
    yield _ROOT / _SHARED / name  # pip install --target
    yield Path(sysconfig.get_path("data", f"{os.name}_user")) / _SHARED / name
    yield Path(sysconfig.get_path("data")) / _SHARED / name
