"""The observations, and the diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from app.agent.evidence.cluster.handover import handover, lasting_commands
from app.agent.evidence.cluster.log_patterns import pattern_facts
from app.agent.evidence.conditions import impact_of
from app.agent.evidence.format import confidence, counted, in_words
from app.agent.evidence.onset.patience import Patience
from app.agent.ids import JsonObject
from app.agent.models import Cause, Diagnosis, Evidence, Note, Stage


def evidence_note(evidence: Evidence, missing: Sequence[str], at: datetime) -> Note:
    """The evidence that was collected, and the sources that were unavailable."""
    workload = evidence.workload
    said = [
        counted(len(evidence.signals), "signal"),
        f"{counted(sum(c.key == evidence.key for c in evidence.changes), 'reported change')} of the service",
    ]
    if workload is not None:
        said.append(
            f"revision {workload.current_revision} with {workload.available_replicas} of "
            f"{workload.desired_replicas} replicas available"
        )
    message = f"Evidence: {', '.join(said)}."
    logs = pattern_facts(evidence.log_patterns)
    if logs:
        message += f" Patterns of logs: {'; '.join(logs)}."
    if missing:
        message += f" Unavailable: {'; '.join(missing)}."
    return Note(
        at=at,
        stage=Stage.OBSERVE,
        message=message,
        data={
            "conditions": [str(c) for c in evidence.conditions],
            "missing": list(missing),
            "log_patterns": [*logs],
            "impact": None if workload is None else str(impact_of(workload)),
        },
    )


def diagnosis_note(diagnosis: Diagnosis, at: datetime) -> Note:
    """The most likely cause, with the evidence for and against it."""
    best = diagnosis.best
    named = best.cause is not Cause.UNKNOWN
    opening = (
        f"Most likely {in_words(best.cause)} ({confidence(best.confidence)})" if named else "Cause unknown"
    )
    message = f"{opening}: {'; '.join(best.evidence_for)}."
    if best.evidence_against:
        message += f" Evidence against: {'; '.join(best.evidence_against)}."
    ranked: list[JsonObject] = [
        {"cause": h.cause, "confidence": h.confidence, "rule": h.rule} for h in diagnosis.hypotheses
    ]
    return Note(at=at, stage=Stage.DIAGNOSE, message=message, data={"hypotheses": [*ranked]})


_LESS_LIKELY = 2
"""At most this many other causes are listed."""


def handover_note(evidence: Evidence, diagnosis: Diagnosis, at: datetime) -> Note | None:
    """The facts for the person who takes over, if no action is planned; None without a workload or batch."""
    found = handover(evidence, diagnosis.best.cause)
    if found is None:
        return None
    message = f"Handover: {'; '.join(found.facts)}."
    if found.warnings:
        message += f" Warnings of the cluster: {'; '.join(found.warnings)}."
    others = less_likely(diagnosis)
    if others:
        message += f" Less likely: {'; '.join(others)}."
    message += f" To inspect: {found.commands[0]}"
    return Note(
        at=at,
        stage=Stage.PLAN,
        message=message,
        data={
            "facts": list(found.facts),
            "warnings": list(found.warnings),
            "commands": list(found.commands),
            "less_likely": [*others],
        },
    )


def with_commands(note: Note, evidence: Evidence) -> Note:
    """The note of a plan that acts, with the commands to inspect the workload in its data: an action
    may fail or be undone, and the person who then takes over needs them."""
    if evidence.workload is None:
        return note
    return replace(note, data={**note.data, "commands": list(lasting_commands(evidence.workload))})


def less_likely(diagnosis: Diagnosis) -> list[str]:
    """The other causes that were examined, with the strongest finding against each."""
    return [
        f"{in_words(one.cause)} ({confidence(one.confidence)}), because {one.evidence_against[0]}"
        for one in diagnosis.hypotheses[1:]
        if one.evidence_against and one.cause is not Cause.UNKNOWN
    ][:_LESS_LIKELY]


def wait_note(wait: Patience, at: datetime) -> Note:
    """The agent decides nothing while the symptom may end by itself."""
    return Note(
        at=at,
        stage=Stage.DIAGNOSE,
        message=f"{wait.why[:1].upper()}{wait.why[1:]}, until {wait.until:%H:%M:%S} UTC.",
        data={"waits_for": wait.waits_for, "until": wait.until.isoformat()},
    )
