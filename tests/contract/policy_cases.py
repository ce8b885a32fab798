"""The policy cases as data, and the documents that are made from them: equal for every engine.

A case is the shared document with some fields set or removed, perhaps with another
configuration or a custom module beside the shipped policy.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.agent.ids import JsonObject
from app.agent.models import DecisionKind
from app.connectors.policy.bundle import shipped_policies

FILE = Path(__file__).parent.parent / "data" / "policy-cases.json"
SEED = 20_260_220


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question and the answer that is right."""

    name: str
    document: JsonObject
    config: JsonObject | None
    module: str | None
    decision: DecisionKind
    rules: tuple[str, ...] | None
    """The rules that decide; None where an engine's error decides, which has no rule."""


def base_document() -> JsonObject:
    """The document that the cases change."""
    document: JsonObject = json.loads(FILE.read_text())["document"]
    return document


def cases() -> tuple[Case, ...]:
    """Every case of the file, in its order."""
    content = json.loads(FILE.read_text())
    return tuple(_case(content["document"], each) for each in content["cases"])


def write_bundle(folder: Path, case: Case) -> Path:
    """The shipped policies with the configuration and the module of a case."""
    shutil.copytree(shipped_policies(), folder)
    if case.config is not None:
        (folder / "data.json").write_text(json.dumps({"heal_config": case.config}))
    if case.module is not None:
        (folder / "own.rego").write_text(case.module)
    return folder


def mutated(count: int, seed: int = SEED) -> Iterator[JsonObject]:
    """Documents that no agent would send: parts lost, swapped, and of other kinds; the same for a seed."""
    dice = random.Random(seed)  # noqa: S311 - chance for tests, repeatable on purpose
    documents = [case.document for case in cases() if case.config is None and case.module is None]
    for _ in range(count):
        document = copy.deepcopy(dice.choice(documents))
        for _ in range(dice.choice((1, 1, 1, 2, 3))):
            _mutate(document, dice)
        yield document


def _case(base: JsonObject, raw: dict[str, Any]) -> Case:
    document = copy.deepcopy(base)
    for path, value in raw.get("set", {}).items():
        parent, name = _place(document, path)
        parent[name] = value
    for path in raw.get("remove", ()):
        parent, name = _place(document, path)
        del parent[name]
    rules = raw.get("rules")
    return Case(
        name=raw["name"],
        document=document,
        config=raw.get("config"),
        module=raw.get("module"),
        decision=DecisionKind(raw["decision"]),
        rules=None if rules is None else tuple(rules),
    )


def _place(document: JsonObject, path: str) -> tuple[dict[str, Any], str]:
    parent: Any = document
    *above, name = path.split(".")
    for part in above:
        parent = parent[part]
    return parent, name


_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 1.5, -0.0, 1e300, 2**53 + 1, 2**63, 10**18, ""),
    *(
        " ",
        "allow",
        "deny",
        "high",
        "low",
        "rollback",
        "2",
        "ä€😀",
        "\u0000",
        "x" * 300,
        "2026-02-20T17:02:00Z",
    ),
    *("2026-02-30T17:02:00Z", "9999-12-31T23:59:59Z", "0000-00-00", "<undefined>", "data.heal.decision"),
    *([], {}, [None], [[]], {"engaged": False}, {"engaged": True}, ["rollback"], [{}], {"accepted": True}),
    *({"limit": "cooldown", "reason": "x"}, [{"limit": 1, "reason": "x"}], {"": ""}),
)


def _mutate(document: JsonObject, dice: random.Random) -> None:
    places = list(_places(document))
    if not places:
        return
    parent, key = dice.choice(places)
    match dice.randrange(5):
        case 0:
            del parent[key]
        case 1:
            other, name = dice.choice(places)
            parent[key] = copy.deepcopy(other[name])
        case 2 if isinstance(parent, list):
            parent.insert(dice.randrange(len(parent) + 1), copy.deepcopy(dice.choice(_ODD)))
        case 2:
            parent[dice.choice(("extra", "engaged", "accepted", "decision"))] = copy.deepcopy(
                dice.choice(_ODD)
            )
        case _:
            parent[key] = copy.deepcopy(dice.choice(_ODD))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every key and index of a document."""
    children: Any = ()
    if isinstance(value, dict):
        children = list(value)
    elif isinstance(value, list):
        children = range(len(value))
    for child in children:
        yield value, child
        yield from _places(value[child])
