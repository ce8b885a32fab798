"""Who may do what on the bed's cluster: the identities that tests act as."""

from __future__ import annotations

from lightkube import Client
from lightkube.models.admissionregistration_v1 import (
    MatchCondition,
    MatchResources,
    NamedRuleWithOperations,
    ValidatingAdmissionPolicyBindingSpec,
    ValidatingAdmissionPolicySpec,
    Validation,
)
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.models.rbac_v1 import PolicyRule, RoleRef, Subject
from lightkube.resources.admissionregistration_v1 import (
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
)
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding

ADMIN = "admin"
AGENT = "agent"
READONLY = "readonly"
NO_PODS = "agent-no-pods"
"""May do all that `agent` may, but create a pod, in a dry run either."""
NOBODY = "nobody"
KUBELET = "testbed-kubelet"
FLEET = "testbed-fleet"

_READ = ["get", "list", "watch"]
_WORKLOADS = ["deployments", "statefulsets", "daemonsets", "replicasets", "controllerrevisions"]
_READ_RULES = [
    PolicyRule(
        apiGroups=[""], resources=["pods", "configmaps", "events", "namespaces", "nodes"], verbs=_READ
    ),
    PolicyRule(apiGroups=[""], resources=["secrets"], verbs=["list"]),  # HELM_RELEASES
    PolicyRule(apiGroups=[""], resources=["pods/log"], verbs=["get"]),  # LOG_EVIDENCE
    PolicyRule(apiGroups=["apps"], resources=_WORKLOADS, verbs=_READ),
    PolicyRule(apiGroups=["batch"], resources=["jobs", "cronjobs"], verbs=["get", "list"]),  # WATCH_JOBS
    PolicyRule(apiGroups=["policy"], resources=["poddisruptionbudgets"], verbs=_READ),
    PolicyRule(apiGroups=["autoscaling"], resources=["horizontalpodautoscalers"], verbs=_READ),
    PolicyRule(apiGroups=[""], resources=["services"], verbs=_READ),
    PolicyRule(apiGroups=["networking.k8s.io"], resources=["ingresses", "networkpolicies"], verbs=_READ),
    PolicyRule(apiGroups=["argoproj.io"], resources=["rollouts"], verbs=_READ),
    PolicyRule(
        apiGroups=["kustomize.toolkit.fluxcd.io", "source.toolkit.fluxcd.io", "helm.toolkit.fluxcd.io"],
        resources=["kustomizations", "gitrepositories", "helmreleases"],
        verbs=["get", "list"],
    ),  # FLUX_ENABLED
    PolicyRule(apiGroups=["flagger.app"], resources=["canaries"], verbs=_READ),
    PolicyRule(apiGroups=["keda.sh"], resources=["scaledobjects"], verbs=_READ),
    PolicyRule(apiGroups=["autoscaling.k8s.io"], resources=["verticalpodautoscalers"], verbs=_READ),
]
_WRITE_RULES = [
    PolicyRule(
        apiGroups=["apps"],
        resources=["deployments", "deployments/scale", "statefulsets", "daemonsets"],
        verbs=["patch"],
    ),
    PolicyRule(apiGroups=[""], resources=["configmaps", "nodes"], verbs=["patch"]),
    PolicyRule(apiGroups=[""], resources=["pods"], verbs=["delete"]),
    PolicyRule(apiGroups=["batch"], resources=["jobs"], verbs=["create"]),  # rerun_job
    PolicyRule(apiGroups=[""], resources=["pods/eviction"], verbs=["create"]),  # drain_node
    PolicyRule(apiGroups=["argoproj.io"], resources=["rollouts", "rollouts/status"], verbs=["patch"]),
    PolicyRule(apiGroups=["autoscaling"], resources=["horizontalpodautoscalers"], verbs=["patch"]),
    PolicyRule(apiGroups=["source.toolkit.fluxcd.io"], resources=["gitrepositories"], verbs=["patch"]),
]


_TRY_RULES = [PolicyRule(apiGroups=[""], resources=["pods"], verbs=["create"])]
"""RBAC cannot tell a dry run from a real request: `_only_in_dry_runs` does."""


def create_roles(client: Client) -> None:
    """Give `agent` exactly what the agent needs, `readonly` the same without writing, `nobody` nothing."""
    _only_in_dry_runs(client, AGENT)
    _role(client, "testbed-agent", [*_READ_RULES, *_WRITE_RULES], [AGENT, NO_PODS])
    _role(client, "testbed-agent-tries-pods", _TRY_RULES, [AGENT])
    _role(client, "testbed-readonly", _READ_RULES, [READONLY, FLEET])


def _only_in_dry_runs(client: Client, user: str) -> None:
    """The policy of docs/kubernetes.md: the right to create pods holds for dry runs alone."""
    name = "testbed-agent-tries-pods"
    rule = NamedRuleWithOperations(
        apiGroups=[""], apiVersions=["v1"], operations=["CREATE"], resources=["pods"]
    )
    spec = ValidatingAdmissionPolicySpec(
        failurePolicy="Fail",
        matchConstraints=MatchResources(resourceRules=[rule]),
        matchConditions=[
            MatchCondition(name="the-agent", expression=f"request.userInfo.username == '{user}'")
        ],
        validations=[
            Validation(
                expression="has(request.dryRun) && request.dryRun",
                message="the agent creates pods only in a dry run",
            )
        ],
    )
    client.create(ValidatingAdmissionPolicy(metadata=ObjectMeta(name=name), spec=spec))
    client.create(
        ValidatingAdmissionPolicyBinding(
            metadata=ObjectMeta(name=name),
            spec=ValidatingAdmissionPolicyBindingSpec(policyName=name, validationActions=["Deny"]),
        )
    )


def refuse_pods(client: Client, namespace: str, why: str) -> None:
    """An admission policy that refuses every new pod of a namespace, as a security team would set one."""
    name = f"refuse-pods-{namespace}"
    rule = NamedRuleWithOperations(
        apiGroups=[""], apiVersions=["v1"], operations=["CREATE"], resources=["pods"]
    )
    spec = ValidatingAdmissionPolicySpec(
        failurePolicy="Fail",
        matchConstraints=MatchResources(
            resourceRules=[rule],
            namespaceSelector=LabelSelector(matchLabels={"kubernetes.io/metadata.name": namespace}),
        ),
        validations=[Validation(expression="false", message=why)],
    )
    client.create(ValidatingAdmissionPolicy(metadata=ObjectMeta(name=name), spec=spec))
    client.create(
        ValidatingAdmissionPolicyBinding(
            metadata=ObjectMeta(name=name),
            spec=ValidatingAdmissionPolicyBindingSpec(policyName=name, validationActions=["Deny"]),
        )
    )


def admit_pods(client: Client, namespace: str) -> None:
    """Take `refuse_pods` back."""
    client.delete(ValidatingAdmissionPolicyBinding, f"refuse-pods-{namespace}")
    client.delete(ValidatingAdmissionPolicy, f"refuse-pods-{namespace}")


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
