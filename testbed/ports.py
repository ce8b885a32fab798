"""Loopback ports for programs that cannot choose one themselves."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator

from testbed import TestbedError

_ATTEMPTS = 3
_RANGE = range(10_000, 32_000)
"""Below the ports that Linux gives to outgoing connections and to sockets bound to port 0."""
_BLOCK = 50


class _Leases:
    """The ports of this process: blocks that no other process of the test bed uses while it lives.

    A port stays the caller's after the program on it was killed, so that the program
    can be started again there: another test must not get it in between. A block is
    held by a socket in Linux's abstract namespace, which ends with its process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._held: list[socket.socket] = []
        self._ports: Iterator[int] = iter(())

    def take(self) -> int:
        """A port that this process has not used and that has no listener now."""
        with self._lock:
            if self._owner != os.getpid():  # the leases of a process that forked are its own
                self._owner, self._held, self._ports = os.getpid(), [], iter(())
            while True:
                for port in self._ports:
                    if _is_free(port):
                        return port
                self._ports = iter(self._lease())

    def _lease(self) -> range:
        for first in range(_RANGE.start, _RANGE.stop, _BLOCK):
            lease = socket.socket(socket.AF_UNIX)
            try:
                lease.bind(f"\0heal-testbed-ports-{first}")
            except OSError:
                lease.close()
                continue
            self._held.append(lease)
            return range(first, first + _BLOCK)
        raise TestbedError(f"processes of the test bed hold every block of ports in {_RANGE}")


_LEASES = _Leases()


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> tuple[int, ...]:
    """Loopback ports without a listener, each given once; no other process of the test bed gets them.

    A program that is not of the test bed may still take one before it is used.
    """
    return tuple(_LEASES.take() for _ in range(count))


def start_on_free_ports(
    count: int, start: Callable[[tuple[int, ...]], None], abandon: Callable[[], None]
) -> None:
    """Call `start` with fresh ports; when one was taken meanwhile, `abandon` what began and try again."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            start(free_ports(count))
        except TestbedError as error:
            if "address already in use" not in str(error) or attempt == _ATTEMPTS:
                raise
            abandon()
        else:
            return
