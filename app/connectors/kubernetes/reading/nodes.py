"""Reads a node, its pods, and what the other nodes have left, for a drain."""

from __future__ import annotations

from collections import defaultdict

from app.agent.guardrails.drains import NodeLoad, NodePod
from app.agent.guardrails.opt_out import said
from app.agent.ids import JsonObject
from app.connectors.kubernetes.api import EVERYWHERE, Kind, ReadApi
from app.connectors.kubernetes.fields import name, text, texts
from app.connectors.kubernetes.views.nodes import is_ready, node_pod, room_of, takes_pods
from app.errors import Forbidden


async def read_load(api: ReadApi, node: str, *, rooms: bool) -> NodeLoad:
    """The load of a node; `rooms`: with what the other nodes have left, and what namespaces say."""
    try:
        return await (_whole(api, node) if rooms else _pods_alone(api, node))
    except Forbidden as error:
        return NodeLoad(node=node, unread=str(error))


async def _pods_alone(api: ReadApi, node: str) -> NodeLoad:
    listing = await api.list(Kind.POD, EVERYWHERE, fields=f"spec.nodeName={node}")
    pods = tuple(node_pod(item) for item in listing.items)
    return NodeLoad(node=node, pods=pods, not_ready=_not_ready(await _others(api, node)))


async def _others(api: ReadApi, node: str) -> list[JsonObject]:
    nodes: list[JsonObject] = []
    async for page in api.pages(Kind.NODE, ""):
        nodes += [one for one in page.items if name(one) != node]
    return nodes


def _not_ready(nodes: list[JsonObject]) -> tuple[str, ...]:
    return tuple(sorted(name(one) for one in nodes if not is_ready(one)))


async def _whole(api: ReadApi, node: str) -> NodeLoad:
    others = await _others(api, node)
    placed: dict[str, list[NodePod]] = defaultdict(list)
    async for page in api.pages(Kind.POD, EVERYWHERE):
        for item in page.items:
            placed[text(item, "spec", "nodeName") or ""].append(node_pod(item))
    pods = tuple(placed[node])
    homes = sorted({pod.ref.namespace for pod in pods if pod.moves})
    return NodeLoad(
        node=node,
        pods=pods,
        rooms=tuple(room_of(one, placed[name(one)]) for one in others if is_ready(one) and takes_pods(one)),
        not_ready=_not_ready(others),
        opted_out=tuple([home for home in homes if await _opts_out(api, home)]),
    )


async def _opts_out(api: ReadApi, namespace: str) -> bool:
    found = await api.get(Kind.NAMESPACE, namespace, namespace)
    return said(texts(found, "metadata", "labels"), texts(found, "metadata", "annotations")) is False
