"""What carries requests in the simulated world: Services and network policies, and the changes of them.

Each service has a Service of its name that selects its pods. Requests follow
`app.sandbox.services.Surroundings`; here is what the agent can read of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.agent.routes import (
    NETWORK_POLICY,
    SERVICE,
    RouteChange,
    RouteEffect,
    RouteFault,
    RouteObject,
    RoutesView,
)
from app.sandbox.engine import Engine
from app.sandbox.services import Surroundings

TARGET = "http"
"""The name of the port that every container has."""
_KEPT = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceObject:
    """What a Service asks for."""

    selector: str
    """As `app=shop`."""
    target: str = TARGET
    """The port of the container."""
    ports: tuple[int, ...] = (80,)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyObject:
    """What a network policy lets through to the pods of a service, or from them."""

    service: str
    allowed: str
    """In words: `pods app=portal`."""
    direction: str = "ingress"


class WorldRoutes:
    """The Services and network policies of a world."""

    def __init__(self, engine: Engine, surroundings: Surroundings) -> None:
        self._engine = engine
        self._around = surroundings
        self._began_at = engine.now
        self._changes: dict[str, list[RouteChange]] = {}
        self._services: dict[tuple[str, str], ServiceObject] = {}
        self._policies: dict[tuple[str, str], PolicyObject] = {}

    def service(self, namespace: str, name: str) -> ServiceObject:
        """The Service of a service, as it is now."""
        return self._services.get((namespace, name), ServiceObject(selector=f"app={name}"))

    def put_service(self, namespace: str, name: str, spec: ServiceObject, *, by: str) -> None:
        """Change what a Service asks for; where it selects no pod, or no port of theirs, requests fail."""
        before = self.service(namespace, name)
        self._services[namespace, name] = spec
        served = self._fault(namespace, name) is None
        (self._around.unselected.discard if served else self._around.unselected.add)((namespace, name))
        difference = [
            f"{field} {old} -> {new}"
            for field, old, new in (
                ("selector", before.selector, spec.selector),
                ("target of port 80", f"{before.target}/TCP", f"{spec.target}/TCP"),
                ("ports", _listed(before.ports), _listed(spec.ports)),
            )
            if old != new
        ]
        if difference:
            self._record(namespace, (SERVICE, name), difference, service=name, cuts=not served, by=by)

    def put_policy(self, namespace: str, name: str, spec: PolicyObject, *, cuts: bool, by: str) -> None:
        """Create a network policy, or change it; `cuts`: it lets less through than before."""
        before = self._policies.get((namespace, name))
        self._policies[namespace, name] = spec
        field = f"allowed {spec.direction}"
        if before is None:
            difference = ["created", f"podSelector app={spec.service}", f"{field} {spec.allowed}"]
        else:
            difference = [f"{field} {before.allowed} -> {spec.allowed}"]
        if before != spec:
            self._record(
                namespace, (NETWORK_POLICY, name), difference, service=spec.service, cuts=cuts, by=by
            )

    def delete_policy(self, namespace: str, name: str) -> None:
        """Delete a network policy: every request is let through again."""
        spec = self._policies.pop((namespace, name), None)
        if spec is not None:
            self._record(
                namespace, (NETWORK_POLICY, name), ["deleted"], service=spec.service, cuts=False, by=None
            )

    def view(self, namespace: str, service: str, unread: tuple[str, ...]) -> RoutesView:
        """What an agent reads that may read all kinds but `unread`."""
        changes = [one for one in self._changes.get(namespace, ()) if one.kind not in unread]
        policies = self._policies.items()
        named = [
            (NETWORK_POLICY, one) for (home, one), p in policies if home == namespace and p.service == service
        ]
        named.append((SERVICE, service))
        written = {(one.kind, one.name): one.at for one in changes}
        words = None if SERVICE in unread else self._fault(namespace, service)
        at = written.get((SERVICE, service), self._began_at)
        fault = None if words is None else RouteFault(kind=SERVICE, name=service, words=words, written_at=at)
        faults = () if fault is None else (fault,)
        objects = tuple(
            RouteObject(kind=kind, name=name, unchanged_since=written.get((kind, name), self._began_at))
            for kind, name in sorted(named)
            if kind not in unread and (kind == NETWORK_POLICY or words is None)
        )
        return RoutesView(objects=objects, changes=tuple(reversed(changes)), faults=faults, unread=unread)

    def _fault(self, namespace: str, name: str) -> str | None:
        spec = self.service(namespace, name)
        if spec.selector != f"app={name}":
            return f"selects no pod of the namespace (selector {spec.selector})"
        if spec.target != TARGET:
            return f"sends requests to port {spec.target}, which no container of its pods has"
        return None

    def _record(
        self,
        namespace: str,
        place: tuple[str, str],
        difference: list[str],
        *,
        service: str,
        cuts: bool,
        by: str | None,
    ) -> None:
        kept = self._changes.setdefault(namespace, [])
        kept.append(
            RouteChange(
                kind=place[0],
                name=place[1],
                at=self._engine.now,
                by=by,
                difference=tuple(difference),
                effect=RouteEffect.CUTS if cuts else RouteEffect.HARMLESS,
                services=(service,),
            )
        )
        del kept[:-_KEPT]


def selecting(spec: ServiceObject, service: str, *, selects: bool) -> ServiceObject:
    """The Service with a selector that selects the pods of the service, or none."""
    return replace(spec, selector=f"app={service}" if selects else f"app={service}-2")


def _listed(ports: tuple[int, ...]) -> str:
    return ", ".join(str(port) for port in ports)
