"""Values of settings: types of the parts of JSON settings, and sentences about values that do not fit.

Each part is checked where it stands, and named by its path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from app.agent.guardrails.workload_kinds import WORKLOAD_KINDS
from app.redaction import redacted
from app.settings.names import listed

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LOG_PLACEHOLDERS = ("{{namespace}}", "{{pod}}", "{{container}}", "{{cluster}}")
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def _namespace(value: str) -> str:
    if _NAMESPACE.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a namespace; write one like payments")
    return value


def _cluster(value: str) -> str:
    if _NAMESPACE.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a cluster name; write one like east, in lower case")
    return value


def _service(value: str) -> str:
    environment, separator, service = value.partition("/")
    if not separator or not environment.strip() or not service.strip() or "/" in service:
        raise ValueError(f"{value!r} is not a service; write environment/service")
    return value


def _callee(value: str) -> str:
    return _service(value) if "/" in value else _named(value)


def _named(value: str) -> str:
    if not value.strip():
        raise ValueError("a name is missing")
    return value


def _workload(value: str) -> str:
    parts, known = value.split("/"), [name.lower() for name in WORKLOAD_KINDS]
    if (
        len(parts) not in (2, 3)
        or _NAMESPACE.fullmatch(parts[0]) is None
        or _OBJECT.fullmatch(parts[-1]) is None
        or any(kind.lower() not in known for kind in parts[1:-1])
    ):
        raise ValueError(
            f"{value!r} is not a workload; write namespace/name, "
            f"or namespace/kind/name with one of {', '.join(known)}"
        )
    return value


def _application(value: str) -> str:
    namespace, _, application = value.partition("/")
    if _NAMESPACE.fullmatch(namespace) is None or _OBJECT.fullmatch(application) is None:
        raise ValueError(f"{value!r} is no application; write namespace/application")
    return value


def _repository(value: str) -> str:
    if value.startswith("-") or len(value.rstrip("/")) < 2:
        raise ValueError(f"{value!r} is not an address; write one like https://git.example.com/team")
    return value


def _log_labels(value: dict[str, str]) -> dict[str, str]:
    for label, text in value.items():
        if _LABEL.fullmatch(label) is None:
            raise ValueError(f"{label!r} is not a label name")
        if text not in _LOG_PLACEHOLDERS and "{{" in text:
            raise ValueError(f"{text!r} is none of {', '.join(_LOG_PLACEHOLDERS)}")
    if "{{pod}}" not in value.values():
        raise ValueError("no label has the value {{pod}}: the lines of other pods would be read too")
    return value


LogLabels = Annotated[dict[str, str], AfterValidator(_log_labels)]
"""The labels of a container's lines: each the value that it has, or one of the placeholders."""
Tenant = Annotated[str, Field(pattern=r"^[A-Za-z0-9!._*'()|-]{1,150}$")]
"""A tenant of a log store, or several with a bar between them."""
Named = Annotated[str, Field(max_length=253), AfterValidator(_named)]
"""A name that is not empty."""
Namespace = Annotated[str, AfterValidator(_namespace)]
"""The name of a namespace in Kubernetes."""
ServiceName = Annotated[str, AfterValidator(_service)]
"""`environment/service`."""
Callee = Annotated[str, AfterValidator(_callee)]
"""`environment/service`, or a service of the caller's environment."""
ClusterName = Annotated[str, AfterValidator(_cluster)]
"""The name of a cluster of CLUSTERS."""
WorkloadName = Annotated[str, AfterValidator(_workload)]
"""`namespace/name`, or `namespace/kind/name` where several kinds have a workload of that name."""
ApplicationName = Annotated[str, AfterValidator(_application)]
"""`namespace/application` of a GitOps controller."""
RepositoryPrefix = Annotated[str, AfterValidator(_repository)]
"""The address of a repository, or what the addresses of several begin with."""

CommaSeparated = BeforeValidator(lambda value: _parts(value, ","))
"""Accepts `restart,rollback` as written in an environment variable."""
SpaceSeparated = BeforeValidator(lambda value: _parts(value, None))
"""Accepts several addresses with spaces between them: Kafka addresses contain commas."""
Listed = BeforeValidator(lambda value: listed(value) if isinstance(value, str) else value)
"""Accepts names with commas between them, in capitals as settings are compared."""


def _parts(value: object, separator: str | None) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(separator) if part.strip())


EXAMPLES: Mapping[str, str] = {
    "freeze_windows": '[{"name": "weekend", "cron": "0 18 * * FRI", "hours": 62}]',
    "approval_escalation": '[{"after_seconds": 900, "roles": ["team-lead"]}]',
    "kafka_properties": '{"security.protocol": "SASL_SSL"}',
    "environment_namespaces": '{"prod": "payments"}',
    "service_workloads": '{"prod/payments-api": "payments/api"}',
    "clusters": '{"east": {"kubeconfig": "east.yaml", "environment_namespaces": {"prod-east": "payments"}}}',
    "service_dependencies": '{"prod/payments-api": ["ledger"]}',
    "argocd_applications": '{"prod/shop": "argocd/shop-prod"}',
    "git_repositories": '["https://github.com/example"]',
    "alert_home_labels": '{"cluster": "eu-1"}',
    "loki_labels": '{"k8s_namespace_name": "{{namespace}}", "k8s_pod_name": "{{pod}}"}',
    "alert_triggers": '{"HighErrorRate": "high_error_rate"}',
    "slack_users": '{"U0123456789": {"name": "ann", "roles": ["responder"]}}',
    "role_scopes": '{"responder": ["approve", "operate"]}',
}
"""Of each setting that is JSON a value that is valid."""
_MOST_SHOWN = 100
_NOT_THIS_KIND = frozenset({"dict_type", "tuple_type", "list_type", "model_type", "model_attributes_type"})


def example(setting: str) -> str:
    """What to write for a setting that is JSON; empty for any other."""
    return f"; write JSON such as {EXAMPLES[setting]}" if setting in EXAMPLES else ""


def what_is_wrong(error: Mapping[str, object], setting: str, *, secret: bool) -> str:
    """One of pydantic's errors about a setting: the value, unless it is secret, and what would be right."""
    kind, message = str(error["type"]), str(error["msg"]).removeprefix("Value error, ")
    if kind in ("value_error", "missing"):
        return message
    if kind == "extra_forbidden":
        return "no field has this name" + example(setting)
    context = error.get("ctx")
    limits = context if isinstance(context, Mapping) else {}
    value = "the value" if secret else shown(error.get("input"))
    match kind:
        case "enum" | "literal_error":
            wrong = f"is not known; use one of {limits.get('expected')}"
        case "bool_parsing" | "bool_type":
            wrong = "is neither true nor false"
        case "int_parsing" | "int_type" | "int_from_float":
            wrong = "is not a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            wrong = "is not a number"
        case "greater_than":
            wrong = f"is too small; give a number above {limits.get('gt')}"
        case "greater_than_equal":
            wrong = f"is too small; give {limits.get('ge')} or more"
        case "less_than_equal":
            wrong = f"is too large; give {limits.get('le')} or less"
        case _ if kind in _NOT_THIS_KIND:
            wrong = "does not have the right form" + example(setting)
        case _:
            wrong = f"does not fit: {message[:1].lower()}{message[1:]}"
    return f"{value} {wrong}"


def shown(value: object) -> str:
    """A value as it was given, shortened, without what is shaped like a credential."""
    text = redacted(value if isinstance(value, str) else json.dumps(value, default=str))
    return repr(text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "...")
