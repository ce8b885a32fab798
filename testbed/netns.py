"""Two network namespaces with one link between them that can be cut: for tests of partitions.

What runs in them shares the file system with everything else, so Unix sockets reach
across; TCP goes over the link alone. The addresses are of a range that documentation
reserves, and exist in these namespaces only. Needs the right to make namespaces
(root, or CAP_SYS_ADMIN and CAP_NET_ADMIN) and Debian's iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from testbed import TestbedError

_LINK = "link0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One namespace, at one end of the link."""

    name: str
    address: str

    @property
    def within(self) -> tuple[str, ...]:
        """What goes before a command to run it here; the command takes its place, and its pid."""
        return ("ip", "netns", "exec", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Two sides and the link between them."""

    near: Side
    far: Side

    def cut(self) -> None:
        """From now on every packet is dropped, without a message to either side."""
        _ip("-n", self.far.name, "link", "set", _LINK, "down")

    def heal(self) -> None:
        """The link is back; what the two sides make of it is theirs. Safe to repeat."""
        _ip("-n", self.far.name, "link", "set", _LINK, "up")


@contextmanager
def partition() -> Iterator[Partition]:
    """Two sides that see each other, gone afterwards. Raises `TestbedError` without the right or the tool."""
    if shutil.which("ip") is None:
        raise TestbedError("`ip` is not installed (Debian: apt-get install iproute2)")
    tag = f"heal-{os.getpid()}-{uuid4().hex[:6]}"
    near = Side(name=f"{tag}-near", address="192.0.2.1")
    far = Side(name=f"{tag}-far", address="192.0.2.2")
    try:
        for side in (near, far):
            _ip("netns", "add", side.name)
            _ip("-n", side.name, "link", "set", "lo", "up")
        _ip("-n", near.name, "link", "add", _LINK, "type", "veth", "peer", "name", _LINK, "netns", far.name)
        for side in (near, far):
            _ip("-n", side.name, "address", "add", f"{side.address}/30", "dev", _LINK)
            _ip("-n", side.name, "link", "set", _LINK, "up")
        yield Partition(near=near, far=far)
    finally:
        for side in (near, far):
            with suppress(TestbedError):
                _ip("netns", "delete", side.name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        right = "" if os.geteuid() == 0 else "; making network namespaces takes root or CAP_NET_ADMIN"
        raise TestbedError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}{right}")
