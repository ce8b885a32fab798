"""Problem documents: what is wrong with a request, and the fix."""

from __future__ import annotations

from pydantic import BaseModel, Field, JsonValue


class FieldProblem(BaseModel):
    """What is wrong with one field, and how to fix it."""

    field: str = Field(examples=["[3].error_rate"])
    value: JsonValue = Field(examples=[1.5])
    message: str = Field(examples=["input should be less than or equal to 1"])
    fix: str = Field(examples=["send the share of failed requests as a number from 0 to 1, such as 0.13"])
    mend: str = Field(
        description="Deprecated: the same text as `fix`. The next release removes it.", deprecated=True
    )


class ProblemDocument(BaseModel):
    """An error response (RFC 9457)."""

    type: str = Field(examples=["urn:self-healing-devops-agent:problem:invalid-content"])
    title: str
    status: int
    detail: str
    instance: str = Field(examples=["/events/metric"])
    errors: list[FieldProblem] = []
