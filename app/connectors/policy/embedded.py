"""Decides with Rego in this process: the default policy engine, over the bundle of `POLICY_DIR`.

Called by policy, besides the built-in guardrails. Keeps promise 7: a bundle that
does not compile, an undefined or malformed decision, an error or a panic of the
engine, a late answer and a missing library are each a deny with its reason. The
engine lives on one thread of its own, for it panics when another touches it,
and ends with that thread.

It cannot be interrupted, and this process waits while it works: the time limit
makes a late decision a deny, and no more. A server set by OPA_URL is isolated.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from app.agent.ids import JsonObject
from app.agent.ports.policy import PolicyAnswer
from app.config import Settings
from app.connectors.policy.answers import deny, read_decision
from app.connectors.policy.bundle import (
    Bundle,
    BundleProblem,
    read_bundle,
    shipped_policies,
)
from app.connectors.policy.checks import DECISION_RULE
from app.connectors.policy.engine import (
    Compiled,
    EngineFault,
    EngineMissing,
    compile_bundle,
    input_text,
)
from app.errors import ConfigurationError

log = logging.getLogger(__name__)

T = TypeVar("T")

_TIMEOUT_SECONDS = 5.0


class _OfThread(threading.local):
    """What a thread holds: it ends with the thread, which alone may drop it."""

    compiled: Compiled | None = None


_HELD = _OfThread()
"""Not an attribute of `EmbeddedPolicy`: any thread may drop that, also at exit, without closing it."""


class EmbeddedPolicy:
    """`PolicyEngine` in this process."""

    def __init__(self, folder: Path, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        """Raises `ConfigurationError`, naming file and line, for a bundle that does not compile.

        Where the library is missing it starts, says so, and denies everything.
        """
        self._folder = folder
        self._timeout = timeout_seconds
        self._problems: tuple[BundleProblem, ...] = ()
        self._bundle = Bundle(folder=folder, modules=(), data={})
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy")
        self._submit(self._read).result()
        if not self._problems:
            return
        if any(problem == EngineMissing().problem for problem in self._problems):
            log.warning("every action is denied: %s", EngineMissing())
            return
        self._thread.shutdown(wait=False)
        raise ConfigurationError("the policies cannot be used:\n  " + "\n  ".join(map(str, self._problems)))

    @staticmethod
    def from_settings(settings: Settings) -> EmbeddedPolicy:
        """Over `POLICY_DIR`, or the policies that come with the agent. Raises `ConfigurationError`."""
        folder = settings.policy_dir or shipped_policies()
        return EmbeddedPolicy(folder, timeout_seconds=settings.policy_timeout_seconds)

    @property
    def in_force(self) -> Bundle:
        """The policies that were read last, without their tests."""
        return self._bundle

    async def decide(self, document: JsonObject) -> PolicyAnswer:
        """The bundle's decision on the document; anything incomplete is a deny. Never raises."""
        try:
            text = input_text(document)
        except (TypeError, ValueError, RecursionError) as error:
            return deny(f"the policy input cannot be encoded as JSON: {error}")
        asked = time.monotonic()
        try:
            future = self._submit(lambda: self._answer(text))
        except RuntimeError:
            return deny("the policy engine is closed")
        try:
            async with asyncio.timeout(self._timeout):
                answer = await asyncio.wrap_future(future)
        except TimeoutError:
            return self._late()
        return self._late() if time.monotonic() - asked > self._timeout else answer

    async def reload(self) -> tuple[BundleProblem, ...]:
        """Reload the folder and return its problems; while there are any, every decision is deny."""
        await asyncio.wrap_future(self._submit(self._read))
        for problem in self._problems:
            log.error("policies invalid, all actions denied until they are fixed and reloaded: %s", problem)
        if not self._problems:
            log.info("policies reloaded from %s", self._folder)
        return self._problems

    async def aclose(self) -> None:
        """Drop the engine where it was created, and end its thread."""
        try:
            await asyncio.wrap_future(self._submit(self._drop))
        except RuntimeError:
            return  # closed already
        self._thread.shutdown(wait=False)

    # ------------------------------------------------------------------ on the engine's thread

    def _read(self) -> None:
        self._bundle = read_bundle(self._folder).without_tests()
        self._compile()

    def _compile(self) -> None:
        self._drop()
        _HELD.compiled, self._problems = compile_bundle(self._bundle)

    def _drop(self) -> None:
        _HELD.compiled = None

    def _answer(self, document: str) -> PolicyAnswer:
        compiled = _HELD.compiled
        if compiled is None:
            return deny(f"the policies cannot be used: {'; '.join(map(str, self._problems))}")
        try:
            value = compiled.value(DECISION_RULE, document)
        except EngineFault as fault:
            # The fault may be the policy's or the engine's own: start a new engine.
            self._compile()
            return deny(f"the policy engine failed: {fault}")
        if value is None:
            return deny(f"the policy gives no decision: {DECISION_RULE} is undefined")
        return read_decision(b'{"result":' + value + b"}")

    # ------------------------------------------------------------------

    def _late(self) -> PolicyAnswer:
        return deny(f"the policy engine gave no decision within {self._timeout:g} s")

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        return self._thread.submit(work)
