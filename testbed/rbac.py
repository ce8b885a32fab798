"""Who may do what on the bed's cluster: the identities that tests act as."""

from __future__ import annotations

from lightkube import Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.models.rbac_v1 import PolicyRule, RoleRef, Subject
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding

ADMIN = "admin"
AGENT = "agent"
READONLY = "readonly"
NOBODY = "nobody"
KUBELET = "testbed-kubelet"
FLEET = "testbed-fleet"

_READ = ["get", "list", "watch"]
_READ_RULES = [
    PolicyRule(
        apiGroups=[""], resources=["pods", "configmaps", "events", "namespaces", "nodes"], verbs=_READ
    ),
    PolicyRule(apiGroups=["apps"], resources=["deployments", "replicasets"], verbs=_READ),
    PolicyRule(apiGroups=["policy"], resources=["poddisruptionbudgets"], verbs=_READ),
]
_WRITE_RULES = [
    PolicyRule(apiGroups=["apps"], resources=["deployments", "deployments/scale"], verbs=["patch"]),
    PolicyRule(apiGroups=[""], resources=["configmaps"], verbs=["patch"]),
]


def create_roles(client: Client) -> None:
    """Give `agent` exactly what the agent needs, `readonly` the same without writing, `nobody` nothing."""
    _role(client, "testbed-agent", [*_READ_RULES, *_WRITE_RULES], [AGENT])
    _role(client, "testbed-readonly", _READ_RULES, [READONLY, FLEET])


def _role(client: Client, name: str, rules: list[PolicyRule], users: list[str]) -> None:
    group = "rbac.authorization.k8s.io"
    client.create(ClusterRole(metadata=ObjectMeta(name=name), rules=rules))
    client.create(
        ClusterRoleBinding(
            metadata=ObjectMeta(name=name),
            roleRef=RoleRef(apiGroup=group, kind="ClusterRole", name=name),
            subjects=[Subject(kind="User", name=user, apiGroup=group) for user in users],
        )
    )
