"""Lock-out: an address that presents wrong credentials again and again gets no answer to them for a while.

The secrets are far too long to be guessed; this makes guessing show in the log and
makes a sender with an outdated token slow down. A valid credential is accepted all
the while, so that senders behind one address do not lock each other out. Counts
live in one process and are bounded.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta

log = logging.getLogger(__name__)

_MOST_ADDRESSES = 10_000
_IPV6_NETWORK_BITS = 64
"""A holder of one address there has the whole network."""


@dataclass(slots=True)
class _Count:
    failures: int
    until: datetime
    """When the failures are forgotten; from the last allowed one on, when the lock-out ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lockout:
    """Counts wrong credentials by address."""

    attempts: int
    length: timedelta
    _counts: OrderedDict[str, _Count] = field(default_factory=OrderedDict)

    def locked_for(self, address: str | None, now: datetime) -> timedelta | None:
        """How long the address is still locked out; None if it is not."""
        count = self._counts.get(_network(address))
        if count is None or count.failures < self.attempts or now >= count.until:
            return None
        return count.until - now

    def failed(self, address: str | None, now: datetime) -> None:
        """A wrong credential came from there."""
        network = _network(address)
        count = self._counts.pop(network, None)
        if count is None or now >= count.until:
            count = _Count(failures=0, until=now + self.length)
        count.failures += 1
        if count.failures == self.attempts:
            count.until = now + self.length
            log.warning(
                "%d wrong credentials from %s: locked out until %s",
                self.attempts,
                network,
                count.until,
            )
        self._counts[network] = count
        while len(self._counts) > _MOST_ADDRESSES:
            self._counts.popitem(last=False)


def _network(address: str | None) -> str:
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "unknown"
    if parsed.version == 4:
        return str(parsed)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or ipaddress.ip_network((parsed, _IPV6_NETWORK_BITS), strict=False))
