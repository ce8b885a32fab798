"""Plays the events of a scenario that change Services and network policies."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from app.sandbox.routing.objects import TARGET, PolicyObject, selecting
from app.sandbox.scenarios.document import NetworkEvent, PortEvent, RouteEvent, SelectorEvent
from app.sandbox.world import PIPELINE, World

RoutingEvent: TypeAlias = SelectorEvent | PortEvent | RouteEvent | NetworkEvent

_OTHER_PORT = "metrics-old"


def change_routes(world: World, namespace: str, event: RoutingEvent) -> None:
    """Change the object, and with it the way of the requests."""
    match event:
        case NetworkEvent():
            _network(world, namespace, event)
        case SelectorEvent(service=name, selects=selects):
            spec = selecting(world.routes.service(namespace, name), name, selects=selects)
            world.routes.put_service(namespace, name, spec, by=PIPELINE)
        case PortEvent(service=name, heard=heard):
            spec = replace(world.routes.service(namespace, name), target=TARGET if heard else _OTHER_PORT)
            world.routes.put_service(namespace, name, spec, by=PIPELINE)
        case RouteEvent(service=name, changes="ports"):
            spec = world.routes.service(namespace, name)
            more = replace(spec, ports=(*spec.ports, 9000 + len(spec.ports)))
            world.routes.put_service(namespace, name, more, by=PIPELINE)
        case RouteEvent(service=name, changes="policy"):
            policy = PolicyObject(service=name, allowed="every caller")
            world.routes.put_policy(namespace, f"{name}-callers", policy, cuts=False, by=PIPELINE)
        case RouteEvent():
            pass  # labels of the Service itself change nothing that anyone reads


def _network(world: World, namespace: str, event: NetworkEvent) -> None:
    """A policy on the pods of the callee; on those of the caller where the callee is outside the cluster."""
    edge = (event.caller, event.callee)
    blocked = world.surroundings.blocked
    (blocked.add if event.blocked else blocked.discard)(edge)
    outside = event.callee in world.surroundings.externals
    service, direction = (event.caller, "egress") if outside else (event.callee, "ingress")
    name = f"{service}-{direction}"
    other = 1 if outside else 0
    cut = sorted(one[other] for one in blocked if one[1 - other] == service)
    spec = PolicyObject(
        service=service,
        allowed=f"all but {', '.join(cut)}" if cut else "everything",
        direction=direction,
    )
    if event.blocked or cut:
        world.routes.put_policy(namespace, name, spec, cuts=event.blocked, by=PIPELINE)
    else:
        world.routes.delete_policy(namespace, name)
