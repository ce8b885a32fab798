"""Types of the parts of JSON settings: each part is checked where it stands, and named by its path."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def _namespace(value: str) -> str:
    if _NAMESPACE.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no namespace; write one like payments")
    return value


def _service(value: str) -> str:
    environment, separator, service = value.partition("/")
    if not separator or not environment.strip() or not service.strip() or "/" in service:
        raise ValueError(f"{value!r} is no service; write environment/service")
    return value


def _callee(value: str) -> str:
    return _service(value) if "/" in value else _named(value)


def _named(value: str) -> str:
    if not value.strip():
        raise ValueError("a name is missing")
    return value


def _deployment(value: str) -> str:
    namespace, _, deployment = value.partition("/")
    if _NAMESPACE.fullmatch(namespace) is None or _OBJECT.fullmatch(deployment) is None:
        raise ValueError(f"{value!r} is no Deployment; write namespace/deployment")
    return value


Named = Annotated[str, Field(max_length=253), AfterValidator(_named)]
"""A name that is not empty."""
Namespace = Annotated[str, AfterValidator(_namespace)]
"""The name of a namespace in Kubernetes."""
ServiceName = Annotated[str, AfterValidator(_service)]
"""`environment/service`."""
Callee = Annotated[str, AfterValidator(_callee)]
"""`environment/service`, or a service of the caller's environment."""
DeploymentName = Annotated[str, AfterValidator(_deployment)]
"""`namespace/deployment`."""
