"""The services that a workload may call, by the addresses in the environment of its containers. Pure.

Only the keys of services leave this module: no address, which may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from app.agent.ids import JsonObject, ServiceKey
from app.connectors.kubernetes.fields import name, objects, text, texts
from app.connectors.kubernetes.mapping import ServiceMap
from app.connectors.kubernetes.templates import CONTAINER_LISTS, template_of

_MOST_CALLED = 20
_LONGEST_VALUE = 4_096
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_HOST = rf"(?P<name>(?![0-9]){_LABEL})(?:\.(?P<space>{_LABEL})(?:\.svc(?:\.[a-z0-9.-]+)?)?)?"
_URL = re.compile(
    rf"(?<![a-z0-9+.:-])[a-z][a-z0-9+.:-]{{0,30}}://(?:[^\s/@]{{0,256}}@)?{_HOST}(?=[:/?,\s]|$)", re.I
)
"""`http://orders.shop.svc:8080/`, `jdbc:postgresql://db/shop`, `amqp://user:password@queue`."""
_ADDRESS = re.compile(rf"(?:^|(?<=,)){_HOST}:\d{{1,5}}(?=[,/]|$)")
"""`ledger:8080`, one of several separated by commas."""
_BARE = re.compile(_HOST)
_NAMES_A_HOST = re.compile(r"(?i)(?:^|[_.-])(?:host|hostname|addr|address|server|endpoint|url|uri)$")
"""The name of a variable whose value may be a host alone."""
_CALLED_BY = re.compile(
    r"(?i)front|public|external|cors|origin|callback|redirect|allowed|return|issuer|(?:^|_)self(?:_|$)"
)
"""The name of a variable whose address is that of a caller, or of the service itself."""


def services_called(
    workload: JsonObject, config_maps: Iterable[JsonObject], services: ServiceMap
) -> tuple[ServiceKey, ...]:
    """The keys of the addressed services, in the order of the environment, at most twenty.

    An address need not name a service: the caller compares the keys with the known services. Values from
    ConfigMaps count only if their content is given.
    """
    home = text(workload, "metadata", "namespace") or ""
    found: dict[ServiceKey, None] = {}
    for host, space in _hosts(workload, {name(one): texts(one, "data") for one in config_maps}):
        environment = services.environment(space or home)
        if environment is not None:
            found.setdefault(ServiceKey(environment=environment, service=host))
    return tuple(found)[:_MOST_CALLED]


def _hosts(workload: JsonObject, config_maps: dict[str, dict[str, str]]) -> Iterator[tuple[str, str]]:
    """The name and the namespace of each address; the namespace is empty for the workload's own."""
    for variable, value in _environment(workload, config_maps):
        if len(value) > _LONGEST_VALUE or _CALLED_BY.search(variable):
            continue
        found = [*_URL.finditer(value), *_ADDRESS.finditer(value)] if ":" in value else []
        bare = _BARE.fullmatch(value) if _NAMES_A_HOST.search(variable) else None
        for one in (*found, *(() if bare is None else (bare,))):
            yield one["name"].lower(), (one["space"] or "").lower()


def _environment(workload: JsonObject, config_maps: dict[str, dict[str, str]]) -> Iterator[tuple[str, str]]:
    for kind in CONTAINER_LISTS:
        for container in objects(template_of(workload), "spec", kind):
            for source in objects(container, "envFrom"):
                yield from config_maps.get(text(source, "configMapRef", "name") or "", {}).items()
            for item in objects(container, "env"):
                ref = (text(item, "valueFrom", "configMapKeyRef", part) or "" for part in ("name", "key"))
                value = text(item, "value") or config_maps.get(next(ref), {}).get(next(ref), "")
                yield text(item, "name") or "", value
