"""Plans of the statements that a server ran, from `auto_explain` in its log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOGGED: Mapping[str, str] = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_format": "json",
    "auto_explain.log_nested_statements": "on",
}
"""Settings with which PostgreSQL writes each plan to its log."""
LARGE = frozenset({"incidents", "timeline", "intents", "approvals"})
"""Tables that grow with every incident."""
_PLAN = re.compile(r"duration: [\d.]+ ms  plan:\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one statement was run."""

    query: str
    times: int
    access: list[str]
    """Each access to a large table: the index, or the table that was read from end to end."""
    scanned: list[str]
    """Large tables that were read from end to end."""


def plans_of(log: Path, *, since: int = 0) -> list[Plan]:
    """The plans of a log over large tables, one for each statement and way of access.

    `since` is the byte of the log at which reading begins.
    """
    found: dict[tuple[str, tuple[str, ...]], Plan] = {}
    for document in _documents(log.read_bytes()[since:].decode(errors="replace")):
        nodes = [node for node in _nodes(document["Plan"]) if node.get("Relation Name") in LARGE]
        bitmaps = {
            node["Index Name"]
            for node in _nodes(document["Plan"])
            if node["Node Type"] == "Bitmap Index Scan"
        }
        scanned = sorted({n["Relation Name"] for n in nodes if n["Node Type"] == "Seq Scan"})
        access = sorted({_described(node, bitmaps) for node in nodes})
        if not access:
            continue
        query = re.sub(r"\s+", " ", document["Query Text"]).strip()
        key = (query, tuple(access))
        times = found[key].times + 1 if key in found else 1
        found[key] = Plan(query=query, times=times, access=access, scanned=scanned)
    return sorted(found.values(), key=lambda plan: (not plan.scanned, -plan.times, plan.query))


def _described(node: Mapping[str, Any], bitmaps: set[str]) -> str:
    table = node["Relation Name"]
    if node["Node Type"] == "Seq Scan":
        return f"{table}: read from end to end"
    by = node.get("Index Name") or " and ".join(sorted(bitmaps))
    return f"{table} by {by}"


def _documents(log: str) -> Iterator[Mapping[str, Any]]:
    """The JSON after each mark; PostgreSQL begins each further line of a message with a tab."""
    decoder = json.JSONDecoder(strict=False)
    for mark in _PLAN.finditer(log):
        document, _ = decoder.raw_decode(log[mark.end() :].lstrip())
        yield document


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
