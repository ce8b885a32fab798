"""What a change of a Service, Ingress or NetworkPolicy can do to the requests of some pods. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from app.agent.ids import Json, JsonObject
from app.agent.routes import RouteEffect
from app.connectors.kubernetes.api import Kind
from app.connectors.kubernetes.fields import mapping, number, objects, text, texts
from app.connectors.kubernetes.index import selects

Labels: TypeAlias = Mapping[str, str]

_DIRECTIONS = {"Ingress": "ingress", "Egress": "egress"}
_PEERS = {"ingress": "from", "egress": "to"}
TOO_LONG = "tooLong"
"""Stands for a field, or for every entry of a list, that was not kept because of its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """The pods of one service, as far as routes concern them."""

    labels: Sequence[Labels]
    """Of each pod and of the template that new ones are made from."""
    named_ports: frozenset[str]
    numbers: frozenset[int]
    """The ports that its containers name; a container may listen on others."""


def pods_of(template: JsonObject, pods: Iterable[JsonObject] = ()) -> Pods:
    """The pods that are made from a template, with those that are there.

    Sidecars that a webhook adds are containers of the pods alone.
    """
    own, there = texts(template, "metadata", "labels"), tuple(pods)
    lists = ("containers", "initContainers")
    containers = [one for pod in (template, *there) for field in lists for one in objects(pod, "spec", field)]
    ports = [port for one in containers for port in objects(one, "ports")]
    numbers = (number(port, "containerPort") for port in ports)
    return Pods(
        labels=tuple(texts(pod, "metadata", "labels") for pod in there) + ((own,) if own else ()),
        named_ports=frozenset(named for port in ports if (named := text(port, "name")) is not None),
        numbers=frozenset(one for one in numbers if one is not None),
    )


def service_selects(service: JsonObject, labels: Sequence[Labels]) -> bool:
    """Whether a Service sends requests to one of these pods, as soon as it is ready."""
    wanted = texts(service, "spec", "selector")
    external = text(service, "spec", "type") == "ExternalName"
    return bool(wanted) and not external and any(wanted.items() <= one.items() for one in labels)


def policy_selects(policy: JsonObject, labels: Sequence[Labels]) -> bool:
    """Whether a NetworkPolicy is about one of these pods; an empty selector is about all of the namespace.

    A selector that was too long to be kept is about none.
    """
    selector = mapping(policy, "spec", "podSelector")
    if TOO_LONG in selector:
        return False
    every = not mapping(selector, "matchLabels") and not objects(selector, "matchExpressions")
    return bool(labels) and (every or any(selects(selector, one) for one in labels))


def backends(ingress: JsonObject) -> frozenset[tuple[str, str]]:
    """The Services that an Ingress sends requests to, each with a host and path."""
    found = {("", text(ingress, "spec", "defaultBackend", "service", "name") or "")}
    for rule in objects(ingress, "spec", "rules"):
        for path in objects(rule, "http", "paths"):
            where = f"{text(rule, 'host') or '*'}{text(path, 'path') or '/'}"
            found.add((where, text(path, "backend", "service", "name") or ""))
    return frozenset((where, service) for where, service in found if service)


def service_effect(old: JsonObject | None, new: JsonObject | None, pods: Pods) -> RouteEffect:
    """Of a Service that selected the pods before or does now."""
    if old is None or not service_selects(old, pods.labels):
        return RouteEffect.HARMLESS
    if new is None or not service_selects(new, pods.labels):
        return RouteEffect.CUTS
    kept = {number(port, "port"): port for port in objects(new, "spec", "ports")}
    for port in objects(old, "spec", "ports"):
        now = kept.get(number(port, "port"))
        if now is None or (now.get("targetPort") != port.get("targetPort") and _unheard(now, pods)):
            return RouteEffect.CUTS
    return RouteEffect.HARMLESS


def unserved_ports(service: JsonObject, pods: Pods) -> tuple[str, ...]:
    """The target ports that no container has, by name: nothing can answer there."""
    named = (text(port, "targetPort") for port in objects(service, "spec", "ports"))
    return tuple(sorted({one for one in named if one is not None and one not in pods.named_ports}))


def _unheard(port: JsonObject, pods: Pods) -> bool:
    """Whether the containers name ports, and not the target of this one."""
    target = port.get("targetPort", port.get("port"))
    if isinstance(target, str):
        return target not in pods.named_ports
    return bool(pods.numbers) and not (isinstance(target, int) and target in pods.numbers)


def policy_effect(
    old: JsonObject | None,
    new: JsonObject | None,
    pods: Pods,
    others: Sequence[JsonObject],
    earlier: Sequence[JsonObject] | None = None,
) -> RouteEffect:
    """Of a NetworkPolicy that selected the pods before or does now; `others` are those beside it now.

    Pods that a policy selects receive (or send) what its rules allow and nothing else; several
    policies allow what one of them allows. `earlier` are those that were beside it before the
    change, where these are not the same.
    """
    for kind, field in _DIRECTIONS.items():
        before, after = (_rules(one, kind, field, pods) for one in (old, new))
        beside = [found for one in others if (found := _rules(one, kind, field, pods)) is not None]
        allowed = [*(after or []), *(rule for found in beside for rule in found)]
        if not all(allowed):
            continue  # one of them allows everything
        if before is None and after is not None:
            there = others if earlier is None else earlier
            if all(_rules(one, kind, field, pods) is None for one in there):
                return RouteEffect.CUTS
        restricted = after is not None or bool(beside)
        if restricted and not _all_allowed(before or [], allowed, field):
            return RouteEffect.CUTS
    return RouteEffect.HARMLESS


def _all_allowed(rules: Sequence[JsonObject], allowed: Sequence[JsonObject], field: str) -> bool:
    """Whether each rule is covered by one of those that are allowed."""
    same = {msgspec.json.encode(rule, order="sorted") for rule in allowed}
    return all(
        msgspec.json.encode(rule, order="sorted") in same or any(_covers(one, rule, field) for one in allowed)
        for rule in rules
    )


def _covers(wide: JsonObject, narrow: JsonObject, field: str) -> bool:
    """Whether a rule allows all peers and ports of another; none listed are all."""
    if TOO_LONG in wide:
        return False
    for part in (_PEERS[field], "ports"):
        given, wanted = objects(wide, part), objects(narrow, part)
        if given and not (wanted and all(one in given for one in wanted)):
            return False
    return True


def too_long(item: JsonObject) -> bool:
    """Whether a field of its specification was not kept because of its length."""
    return any(
        _marked(one)
        for value in mapping(item, "spec").values()
        for one in (value[:1] if isinstance(value, list) else [value])
    )


def _marked(entry: Json) -> bool:
    return isinstance(entry, dict) and TOO_LONG in entry


def _rules(policy: JsonObject | None, kind: str, field: str, pods: Pods) -> list[JsonObject] | None:
    """What a policy allows the pods in one direction; None where it does not restrict them."""
    if policy is None or not policy_selects(policy, pods.labels):
        return None
    spec = mapping(policy, "spec")
    listed = spec.get("policyTypes")
    restricts = kind in listed if isinstance(listed, list) else kind == "Ingress" or field in spec
    return objects(policy, "spec", field) if restricts else None


def ingress_effect(old: JsonObject | None, new: JsonObject | None, services: frozenset[str]) -> RouteEffect:
    """Of an Ingress with a route to one of these Services, before or now."""
    before = set() if old is None else {one for one in backends(old) if one[1] in services}
    after = set() if new is None else {one for one in backends(new) if one[1] in services}
    return RouteEffect.CUTS if before - after else RouteEffect.HARMLESS


def fields_of(kind: Kind, item: JsonObject | None) -> dict[str, str]:
    """The fields of a specification, by name, in words."""
    if item is None:
        return {}
    spec = mapping(item, "spec")
    match kind:
        case Kind.SERVICE:
            found = {"selector": _pairs(texts(spec, "selector"))}
            ports = objects(spec, "ports")
            found |= {f"target of port {number(port, 'port')}": _port(port) for port in ports}
            found |= {name: value for name in ("type", "externalName") if (value := text(spec, name))}
            return found
        case Kind.INGRESS:
            found = {f"route {where}" if where else "default backend": to for where, to in backends(item)}
            return found | ({"class": value} if (value := text(spec, "ingressClassName")) else {})
        case _:
            selector = _selector(mapping(spec, "podSelector")) or "every pod"
            listed = spec.get("policyTypes")
            types = ", ".join(str(one) for one in listed) if isinstance(listed, list) else "Ingress"
            rules = {
                field: "; ".join(_rule(rule, field) for rule in objects(spec, field)) or "nothing"
                for kind_, field in _DIRECTIONS.items()
                if kind_ in types
            }
            return {"podSelector": selector, "policyTypes": types} | {
                f"allowed {field}": words for field, words in rules.items()
            }


def _port(port: JsonObject) -> str:
    return f"{port.get('targetPort', port.get('port'))}/{text(port, 'protocol') or 'TCP'}"


def _rule(rule: JsonObject, field: str) -> str:
    """Peers and ports of one rule."""
    peers = [_peer(peer) for peer in objects(rule, _PEERS[field])]
    ports = [str(port.get("port", "every port")) for port in objects(rule, "ports")]
    where = " or ".join(peers) or "anywhere"
    return where + (f" on {', '.join(ports)}" if ports else "")


def _peer(peer: JsonObject) -> str:
    block = text(peer, "ipBlock", "cidr")
    if block is not None:
        return block
    named = {
        "pods": mapping(peer, "podSelector") if "podSelector" in peer else None,
        "namespaces": mapping(peer, "namespaceSelector") if "namespaceSelector" in peer else None,
    }
    return " of ".join(
        f"{what} {_selector(selector) or 'of any label'}"
        for what, selector in named.items()
        if selector is not None
    )


def _selector(selector: JsonObject) -> str:
    """A label selector in words."""
    found = [_pairs(texts(selector, "matchLabels"))]
    for one in objects(selector, "matchExpressions"):
        values = one.get("values")
        listed = ",".join(str(value) for value in values) if isinstance(values, list) else ""
        found.append(f"{text(one, 'key')} {text(one, 'operator')}" + (f" ({listed})" if listed else ""))
    return ",".join(one for one in found if one)


def _pairs(labels: Labels) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
