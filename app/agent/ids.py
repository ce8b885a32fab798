"""Identifiers and JSON types, shared by everything that names an incident, signal or service."""

from __future__ import annotations

from typing import NewType, TypeAlias

import msgspec

SignalId = NewType("SignalId", str)


IncidentId = NewType("IncidentId", str)


IntentId = NewType("IntentId", str)


ApprovalId = NewType("ApprovalId", str)


FencingToken = NewType("FencingToken", int)


JsonScalar: TypeAlias = str | int | float | bool | None


Json: TypeAlias = "JsonScalar | list[Json] | dict[str, Json]"


JsonObject: TypeAlias = dict[str, Json]


class ServiceKey(msgspec.Struct, frozen=True, kw_only=True, order=True, gc=False):
    """What one incident is about and what remediation excludes: a service in an environment.

    A struct, because intake hashes and compares it many times for each signal.
    """

    environment: str
    service: str

    def __str__(self) -> str:
        return f"{self.service} in {self.environment}"
