"""Debian's packages that the bed runs: installs what is missing if it may, else reports what to install."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping

from testbed import TestbedError

PACKAGES: Mapping[str, str] = {
    "openssl": "openssl",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
}
"""Program to package."""


def ensure_packages(tell: Callable[[str], None] = print) -> None:
    """Every program of `PACKAGES` is on PATH afterwards; raises `TestbedError` when that cannot be."""
    missing = _missing()
    if not missing:
        return
    names = " ".join(sorted(set(missing.values())))
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise TestbedError(f"{', '.join(missing)} not found: apt-get install --no-install-recommends {names}")
    tell(f"installing {names}")
    _apt_get("update", "-q")
    _apt_get("install", "-q", "-y", "--no-install-recommends", *sorted(set(missing.values())))
    still = _missing()
    if still:
        raise TestbedError(f"{names} installed, and yet not found on PATH: {', '.join(still)}")


def _missing() -> dict[str, str]:
    return {program: package for program, package in PACKAGES.items() if shutil.which(program) is None}


def _apt_get(*arguments: str) -> None:
    done = subprocess.run(
        ["apt-get", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise TestbedError(f"apt-get {arguments[0]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
