"""Loopback ports for programs that cannot choose one themselves."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from testbed import TestbedError

_ATTEMPTS = 3


def free_ports(count: int) -> tuple[int, ...]:
    """Loopback ports that are free now; another process may still take one before it is used."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(int(one.getsockname()[1]) for one in sockets)


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
