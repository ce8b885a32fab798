"""The definition of an action: everything that other parts of the agent read about it.

The planner asks an action to resolve the symbolic parameters of a runbook
("the previous healthy revision") against the evidence. A precondition that does
not hold is a value with its reason, never an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from app.agent.evidence.facts import current_revision
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.workload_kinds import WORKLOAD_KINDS
from app.agent.ids import Json, JsonObject, JsonScalar
from app.agent.models import Action, ActionName, Evidence, Risk
from app.agent.workload import ObjectRef, Revision, WorkloadView

CONFIG_MAP = "ConfigMap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter as a runbook writes it: a bounded integer, a bounded text or one of a few words."""

    name: str
    meaning: str
    choices: tuple[str, ...] = ()
    """The only allowed words; empty for free values."""
    minimum: int | None = None
    maximum: int | None = None
    """Bounds of an integer."""
    max_length: int | None = None
    """Set for text, which is shown to people and never run."""
    required: bool = True

    def schema(self) -> JsonObject:
        """Its JSON Schema."""
        found: JsonObject = {"description": self.meaning}
        if self.choices:
            found["enum"] = list(self.choices)
        elif self.max_length is not None:
            found |= {"type": "string", "minLength": 1, "maxLength": self.max_length}
        else:
            found |= {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """Bounds from the settings that no plan may leave."""

    scale_min: int
    scale_max: int
    memory_limit_max_mib: int = 4096
    """The highest memory limit of a container, in MiB."""
    silences: bool = False
    """Whether a monitoring is connected in which the agent may silence alerts."""
    optional: frozenset[ActionName] = frozenset()
    """The enabled actions that are not enabled by default: a runbook that needs another is not chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """The state of the target before and after, by content; a state without a name is None.

    An object's token changes with every write, but its content can recur:
    `app.agent.guardrails.limits` compares it with earlier actions (promise 10).
    """

    leaves: str | None = None
    reaches: str | None = None


UNNAMED = StateChange()
"""The action repeats the current request of the target, or the states have no name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The action as it would be carried out."""

    target: ObjectRef | None
    parameters: Mapping[str, JsonScalar]
    expected_effect: str
    change: StateChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """The action must not be planned on this evidence, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unneeded:
    """A conditional step whose condition does not hold: the plan goes without it."""


Resolution: TypeAlias = Resolved | Unmet | Unneeded
Resolver: TypeAlias = Callable[[Mapping[str, JsonScalar], Evidence, PlanLimits], Resolution]
PodsTaken: TypeAlias = Callable[[Action, Disruption], int]
EffectShows: TypeAlias = Callable[[str | None, str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec:
    """One operation of the closed set."""

    name: ActionName
    risk: Risk
    parameters: tuple[Parameter, ...]
    expected_effect: str
    undo: str | None
    """How it is undone, in words; None when it cannot or need not be."""
    resolve: Resolver
    kinds: frozenset[str]
    """The kinds of objects that it acts on; empty if it changes no cluster."""
    changes: tuple[str, ...]
    """The parts of a workload's token that it changes (`app.agent.guardrails.target_token`)."""
    pods_taken: PodsTaken
    """How many pods it makes unavailable at once."""
    enabled_by_default: bool
    """Whether it is in the default of ENABLED_ACTIONS."""
    exactly_one_parameter: bool = False
    """The parameters are alternatives."""
    in_runbooks: bool = True
    accompanies: bool = False
    """The action heals nothing: it runs only together with the next step of the runbook, and ends with the
    incident. If it is disabled or refused, the runbook continues without it."""
    drifts: bool = False
    """The action changes fields that a release tool may have written."""
    removes: bool = False
    """It deletes its object."""
    based_on: tuple[str, ...] = ()
    """Further parts of the token that bind its decision, besides the template and the changed parts."""
    effect_shows: EffectShows | None = None
    """For an action whose request cannot carry a marker: whether the current state, compared with the state
    at the decision, shows the effect."""
    undo_note: str = "Undoing {name} on {target}: it did not help."
    """The timeline's sentence when its undo begins."""
    no_undo_note: str | None = None
    """The timeline's sentence after it did not help; None if it has an undo, or changes no cluster."""

    @property
    def undoable(self) -> bool:
        """Whether a `restore` of the earlier snapshot undoes it."""
        return self.undo is not None

    def describe(self) -> str:
        """One line for people: the effect, the risk and the undo of the action."""
        undo = f"undo: {self.undo}" if self.undo else "no undo"
        return f"{self.name} ({self.risk} risk): {self.expected_effect}; {undo}"

    def schema(self) -> JsonObject:
        """JSON Schema of its `parameters` in a runbook; the shipped schema file holds the same."""
        properties: JsonObject = {p.name: p.schema() for p in self.parameters}
        required: list[Json] = [p.name for p in self.parameters if p.required]
        found: JsonObject = {
            "type": "object",
            "description": self.expected_effect,
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
        if self.exactly_one_parameter:
            found |= {"minProperties": 1, "maxProperties": 1}
        return found


def no_pods(action: Action, disruption: Disruption) -> int:  # noqa: ARG001 - every action counts with the same signature
    """The action replaces no pods."""
    return 0


def rolling_pods(action: Action, disruption: Disruption) -> int:
    """A rollout makes at most as many pods unavailable as the strategy of the workload allows.

    Where no replica serves, it takes none away.
    """
    on_workload = action.target is not None and action.target.kind in WORKLOAD_KINDS
    return disruption.missing_at_once if on_workload and disruption.serving != 0 else 0


def template_change(workload: WorkloadView, wanted: Revision) -> StateChange:
    """From the current pod template to that of another revision."""
    current = current_revision(workload)
    if current is None:
        return UNNAMED
    return StateChange(leaves=f"template {current.template_hash}", reaches=f"template {wanted.template_hash}")
