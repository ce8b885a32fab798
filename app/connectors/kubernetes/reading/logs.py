"""Reads the last lines of a container through the API server, which asks the node."""

from __future__ import annotations

from app.agent.workload import LOG_BYTES, LOG_LINES, LOG_SECONDS, LogTail, ObjectRef
from app.connectors.kubernetes.connection import Connection
from app.connectors.kubernetes.errors import KubernetesCall
from app.errors import PermanentError

_FEWER_LINES = 20
"""Asked for where the lines are too long: the node cuts them from the end, and the last ones say most."""


class KubernetesLogs:
    """`ContainerLogs` over one API server; needs the verb `get` on `pods/log`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def tail(self, pod: ObjectRef, container: str, *, previous: bool) -> LogTail:
        if not previous:
            return await self._tail(pod, container, previous=False)
        try:
            return await self._tail(pod, container, previous=True)
        except PermanentError:
            # Nothing is left of the one that ended, or no right: the other answer says which.
            return await self._tail(pod, container, previous=False)

    async def _tail(self, pod: ObjectRef, container: str, *, previous: bool) -> LogTail:
        text = await self._read(pod, container, lines=LOG_LINES, previous=previous)
        if len(text) >= LOG_BYTES:
            text = await self._read(pod, container, lines=_FEWER_LINES, previous=previous)
        lines = text.decode(errors="replace").splitlines()[-LOG_LINES:]
        return LogTail(lines=tuple(lines), previous=previous)

    async def _read(self, pod: ObjectRef, container: str, *, lines: int, previous: bool) -> bytes:
        call = KubernetesCall(verb="get", what=f"pods/log {pod.namespace}/{pod.name}", effect=False)
        request = self._connection.prepare_log(
            pod.namespace,
            pod.name,
            container=container,
            tailLines=str(lines),
            limitBytes=str(LOG_BYTES),
            **({"previous": "true"} if previous else {}),
        )
        return await self._connection.text(call, request, seconds=LOG_SECONDS, most=LOG_BYTES)
