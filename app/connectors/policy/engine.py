"""Drives the embedded Rego engine, regorus, on the thread that it was created on.

Used by `app.connectors.policy.embedded` for decisions and by `heal policy` for checks. The
engine is a compiled library that answers a fault of its own with an exception that
no `except Exception` catches; everything it raises leaves this module as
`EngineFault`, with the file and line it names where it names one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from app.agent.ids import JsonObject
from app.connectors.policy.answers import FAULT, read_decision
from app.connectors.policy.bundle import (
    DATA_FILE,
    Bundle,
    BundleProblem,
    read_bundle,
)
from app.connectors.policy.checks import DECISION_RULE, check_modules, defines_decision
from app.connectors.policy.entries import check_entries
from app.connectors.policy.fields import check_fields, example_input, input_schema
from app.connectors.policy.tree import Node
from app.connectors.text import shorten

T = TypeVar("T")

_UNDEFINED = '"<undefined>"'
_PLACE = re.compile(r"--> (?P<file>[^\n]+):(?P<line>\d+):(?P<column>\d+)\n")
_ERROR = re.compile(r"^error: (?P<message>.+)$", re.MULTILINE)
_CONFIGURATION = "heal_config"
_CONFIG_RULE = "config"
"""The rule under which the shipped policy denies because it does not understand its configuration."""
_NO_RULE = "not a valid rule path"


class EngineFault(Exception):
    """The engine could not answer; the message is one line, with the place in the policy if known."""

    def __init__(self, problem: BundleProblem) -> None:
        super().__init__(str(problem) if problem.file else problem.message)
        self.problem = problem


class EngineMissing(EngineFault):
    """The library of the embedded engine is not installed here."""

    def __init__(self) -> None:
        why = "the embedded policy engine (gordon-to-regorus) is not installed on this platform: set OPA_URL"
        super().__init__(BundleProblem(file="", message=why))


class Compiled:
    """A bundle that was parsed and checked. It belongs to the thread that made it."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises `EngineFault` for the first thing that stops the engine."""
        self._engine = _guarded(lambda: _library().Engine())
        _guarded(lambda: self._engine.set_gather_prints(True))
        for module in bundle.modules:
            _guarded(partial(self._engine.add_policy, module.file, module.text))
        _guarded(lambda: self._engine.add_data_json(json.dumps(bundle.data)))

    def trees(self) -> list[Node]:
        """The syntax trees of all modules."""
        trees: list[Node] = json.loads(_guarded(lambda: self._engine.get_ast_as_json()))
        return trees

    def builtins(self) -> frozenset[str]:
        """The functions that the engine has."""

        def ask() -> str:
            probe = _library().Engine()
            probe.add_policy("probe", "package probe\nbuiltins := opa.runtime().builtins")
            known: str = probe.eval_rule_as_json("data.probe.builtins")
            return known

        return frozenset(json.loads(_guarded(ask)))

    def value(self, rule: str, document: str) -> bytes | None:
        """The value of a rule as JSON on an input as JSON; None where it is undefined."""

        def ask() -> str:
            self._engine.set_input_json(document)
            value: str = self._engine.eval_rule_as_json(rule)
            self._engine.take_prints()
            return value

        answer = _guarded(ask)
        return None if answer == _UNDEFINED else answer.encode()


def compile_bundle(bundle: Bundle) -> tuple[Compiled | None, tuple[BundleProblem, ...]]:
    """The bundle ready to decide, or everything that is wrong with it. Never raises.

    The evaluation on an empty document lets the engine look at every rule once.
    """
    problems = [*bundle.problems, *_syntax_problems(bundle)]
    if problems:
        return None, tuple(problems)
    try:
        compiled = Compiled(bundle)
        trees = compiled.trees()
        builtins = compiled.builtins()
        found = _guarded(lambda: check_modules(trees, builtins))
        found += _guarded(lambda: check_fields(trees, input_schema()))
        found += _guarded(lambda: check_entries(trees))
        if not defines_decision(trees):
            found.append(
                BundleProblem(file=str(bundle.folder), message=f"no rule {DECISION_RULE} is defined")
            )
        if found:
            return None, tuple(found)
        compiled.value(DECISION_RULE, "{}")
    except EngineFault as fault:
        return None, (fault.problem,)
    return compiled, ()


def check_folder(folder: Path) -> tuple[BundleProblem, ...]:
    """Everything wrong with the policies of a folder, tests included; what compiles is asked one question.

    The question is an ordinary one made from the published schema: a decision that is not
    complete, and a configuration that the shipped policy does not understand, show there.
    """
    compiled, problems = compile_bundle(read_bundle(folder))
    if compiled is None:
        return problems
    try:
        value = compiled.value(DECISION_RULE, input_text(example_input()))
    except EngineFault as fault:
        return (fault.problem,)
    if value is None:
        return ()
    answer = read_decision(b'{"result":' + value + b"}")
    if answer.rules == FAULT:
        return tuple(BundleProblem(file=str(folder), message=reason) for reason in answer.reasons)
    if _CONFIG_RULE not in answer.rules:
        return ()
    wrong = [reason for reason in answer.reasons if _CONFIGURATION in reason]
    return tuple(BundleProblem(file=str(folder / DATA_FILE), message=reason) for reason in wrong)


def _syntax_problems(bundle: Bundle) -> list[BundleProblem]:
    """Each module alone, so that one mistake does not hide those in other files."""
    found = []
    for module in bundle.modules:
        try:
            Compiled(Bundle(folder=bundle.folder, modules=(module,), data={}))
        except EngineFault as fault:
            found.append(fault.problem)
            if isinstance(fault, EngineMissing):
                break
    return found


def _library() -> ModuleType:
    try:
        import regorus  # here: a platform without the library still starts, and denies
    except ImportError:
        raise EngineMissing from None
    library: ModuleType = regorus
    return library


def _guarded(work: Callable[[], T]) -> T:
    """The result, or `EngineFault` for whatever the library raises, a panic included."""
    try:
        return work()
    except EngineFault:
        raise
    except BaseException as error:  # noqa: BLE001 - the library's PanicException is no Exception
        raise EngineFault(_problem(str(error) or type(error).__name__)) from None


def _problem(text: str) -> BundleProblem:
    """The place and the message of the library's error, without its stack trace."""
    said = text.split("Stack backtrace", 1)[0]
    place, error = _PLACE.search(said), _ERROR.search(said)
    message = shorten(error["message"] if error else said)
    if message.startswith(_NO_RULE):
        message = "the rule is not defined"
    if place is None:
        return BundleProblem(file="", message=message)
    return BundleProblem(
        file=place["file"], line=int(place["line"]), column=int(place["column"]), message=message
    )


def input_text(document: JsonObject) -> str:
    """The document as the engine reads it; raises `ValueError` or `TypeError` for what is no JSON."""
    return json.dumps(document, allow_nan=False)
