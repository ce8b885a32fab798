"""The limits of the process itself, set when it starts to serve."""

from __future__ import annotations

import gc
import logging
from functools import cache

log = logging.getLogger(__name__)

OTHER_DESCRIPTORS = 256
"""Open files beside the connections of clients: the database, watches, peers, libraries."""


def raise_descriptor_limit(connections: int) -> int | None:
    """Raise the soft limit of open files to the hard one; the limit in force, None without one.

    Service managers and shells give a soft limit of 1,024, for programs that use select(2); none
    of this one does. A limit that `connections` clients may exhaust is logged as a warning.
    """
    try:
        import resource
    except ImportError:  # a platform without such limits
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError) as error:  # some systems permit less than the hard limit that they name
            log.warning("the limit of open files stays %d: %s", soft, error)
    if soft == resource.RLIM_INFINITY:
        return None
    if soft < connections + OTHER_DESCRIPTORS:
        log.warning(
            "the limit of open files is %d: MAX_CONNECTIONS=%d may exhaust it; raise the hard limit "
            "(ulimit -Hn, LimitNOFILE) or lower MAX_CONNECTIONS",
            soft,
            connections,
        )
    return soft


@cache
def exclude_start_from_collection() -> None:
    """Exempt what exists now from garbage collection, once in a process (ADR 41).

    Half a million objects of modules and settings live as long as the process. A full collection
    visits each of them and stops every request for about 0.1 s.
    """
    gc.collect()
    gc.freeze()
