"""The approved catalogue of runbooks: its content, its YAML files, its schema."""

from app.agent.runbooks.catalogue import (
    EVERYWHERE,
    Catalogue,
    Example,
    Runbook,
    RunbookScope,
    Step,
    load_catalogue,
)
from app.agent.runbooks.document import Document, NoDocument, Place
from app.agent.runbooks.schema import runbook_schema

__all__ = [
    "EVERYWHERE",
    "Catalogue",
    "Document",
    "Example",
    "NoDocument",
    "Place",
    "Runbook",
    "RunbookScope",
    "Step",
    "load_catalogue",
    "runbook_schema",
]
