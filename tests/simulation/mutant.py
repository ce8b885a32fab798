"""What a build that breaks a promise on purpose is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

Swap: TypeAlias = tuple[Callable[..., Any], Callable[..., Any]]
"""A function of the product, and what stands in its place wherever the product has it by name."""
Patch: TypeAlias = tuple[type | ModuleType, str, Any]
"""A class or a module, one of its attributes, and what stands in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One deliberately broken build."""

    name: str
    promise: int
    """Whose check must catch it."""
    told: str
    swaps: Sequence[Swap] = ()
    patches: Sequence[Patch] = ()
    calm: bool = False
    """Whether its seeds run without faults, for a defect that shows only where the agent acts."""
    afterwards: bool = False
    """Whether its seeds go on after all incidents have ended (`tests.simulation.afterwards`)."""


def always(value: object) -> Callable[..., Any]:
    """A function that returns the same, whatever it is given."""
    return lambda *_args, **_options: value
