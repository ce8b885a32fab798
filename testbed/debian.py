"""Debian's packages that the bed runs: installs what is missing if it may, else reports what to install."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from testbed import TestbedError

PROGRAMS = (
    "openssl=openssl",
    "prometheus=prometheus",
    "prometheus-alertmanager=prometheus-alertmanager",
)
"""Each program with its package, as `scripts/debian.sh` takes them."""

_SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "debian.sh"


def ensure_packages(tell: Callable[[str], None] = print) -> None:
    """Every program of `PROGRAMS` is on PATH afterwards; raises `TestbedError` when that cannot be."""
    done = subprocess.run([_SCRIPT, *PROGRAMS], capture_output=True, text=True, check=False)
    if done.stdout.strip():
        tell(done.stdout.strip())
    if done.returncode != 0:
        raise TestbedError(done.stderr.strip()[-2000:])
