"""The world as one identity sees it."""

from __future__ import annotations

from dataclasses import dataclass

from app.agent.actions import ACTIONS
from app.agent.guardrails import workload_kinds
from app.agent.models import Action
from app.errors import Invalid
from app.sandbox.api import Identity
from app.sandbox.cluster.naming import Naming
from app.sandbox.objects import WORKLOADS, ConfigMap, Pod
from app.sandbox.operations import FIELD_MANAGER, Target
from app.sandbox.world import World, WorldSource

AGENT = Identity(name=FIELD_MANAGER)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldAccess:
    """A world as one identity sees it, under one naming of environments."""

    worlds: WorldSource
    naming: Naming
    identity: Identity

    @property
    def world(self) -> World:
        """The world of this moment."""
        return self.worlds()

    def ask(self, verb: str, kind: str) -> None:
        self.world.api.ask(self.identity, verb, kind)

    def find(self, action: Action, verb: str) -> Target:
        """The object that an action names, if the identity may do `verb` with it."""
        ref = action.target
        if ref is None:
            raise Invalid(f"{action.name} touches no object")
        for kind in WORKLOADS:
            if ref.kind == kind.__name__:
                self.ask(verb, ref.kind)
                return self.world.api.get(kind, ref.namespace, ref.name)
        if ref.kind == "ConfigMap":
            self.ask(verb, ref.kind)
            return self.world.api.get(ConfigMap, ref.namespace, ref.name)
        if ACTIONS[action.name].removes and verb == "patch":
            verb = "delete"
        self.ask(verb, ref.kind)
        match ref.kind:
            case workload_kinds.NODE:
                return self.world.node(ref.name)
            case workload_kinds.POD:
                return self.world.api.get(Pod, ref.namespace, ref.name)
            case workload_kinds.AUTOSCALER:
                return self.world.bounds(ref.namespace, ref.name)
        raise Invalid(f"the agent does not work on a {ref.kind}")
