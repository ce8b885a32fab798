"""The post-mortem of an incident as Markdown. Pure.

Text from outside is escaped, so that it is shown as text by every renderer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from app.agent.evidence.format import confidence, in_words
from app.agent.models import IncidentRecord, Intent, TimelineEntry
from app.agent.responders.attention import next_step, severity
from app.agent.timeline import first_broken
from app.durations import span
from app.web.times import stamp

_SPECIAL = re.compile(r"([\\`*_{}\[\]<#!|~&]|^[-+>])")
"""What has a meaning within a line, and what has one only at its start: a command stays as it is typed."""


def markdown(record: IncidentRecord, now: datetime) -> str:
    """What happened, why, what was done, the lesson, the timeline, and whether the record is intact."""
    incident = record.incident
    ended = incident.over_at or now
    lines = [
        f"# {text(incident.key.service)} in {text(incident.key.environment)}: {in_words(incident.state)}",
        "",
        text(incident.summary),
        "",
        f"- Incident: `{incident.id}`",
        f"- Severity: {severity(incident)}",
        f"- Opened: {stamp(incident.opened_at)}",
        f"- Closed: {stamp(incident.over_at) if incident.over_at else 'not yet'}",
        f"- Duration: {span(ended - incident.opened_at)}",
        f"- Triggers: {', '.join(in_words(trigger) for trigger in incident.triggers)}",
        f"- Owner: {text(incident.owner or 'none')}",
    ]
    if incident.acknowledged is not None:
        seen = incident.acknowledged
        after = span(seen.at - incident.opened_at)
        lines.append(f"- Acknowledged: by {text(seen.by)} after {after}")
    if incident.resolved is not None:
        lines.append(f"- Resolved by hand: by {text(incident.resolved.by)} at {stamp(incident.resolved.at)}")
    if incident.dry_run:
        lines.append("- Dry run: nothing was written")
    for title, part in (
        ("Cause", _cause(record)),
        ("What was done", _actions(record)),
        ("Outcome", _outcome(record)),
        ("Timeline", _timeline(record.timeline)),
    ):
        lines += ["", f"## {title}", "", *part]
    lines += ["", "## Record", "", *_proof(record)]
    return "\n".join(lines) + "\n"


def text(value: str) -> str:
    """Foreign text on one line, without a meaning in Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", " ".join(value.split()))


def _cause(record: IncidentRecord) -> Iterator[str]:
    diagnosis = record.incident.diagnosis
    if diagnosis is None:
        yield "Not diagnosed."
        return
    for hypothesis in diagnosis.hypotheses:
        yield f"- **{in_words(hypothesis.cause)}** ({confidence(hypothesis.confidence)})"
        yield from (f"  - for: {text(line)}" for line in hypothesis.evidence_for)
        yield from (f"  - against: {text(line)}" for line in hypothesis.evidence_against)


def _actions(record: IncidentRecord) -> Iterator[str]:
    plan = record.incident.plan
    if plan is not None and plan.runbook is not None:
        yield f"Runbook `{plan.runbook}`, plan `{plan.hash[:16]}`."
        yield ""
    if not record.intents:
        yield "No action was decided on."
    for intent in record.intents:
        yield from _action(intent)


def _action(intent: Intent) -> Iterator[str]:
    action = intent.action
    target = f" {text(str(action.target))}" if action.target is not None else ""
    yield f"- **{action.words}**{target}: {intent.decision.kind.words}"
    yield from (f"  - {text(reason)}" for reason in intent.decision.reasons)
    if intent.rehearsal is not None:
        verdict = "would accept" if intent.rehearsal.accepted else "would reject"
        yield f"  - API server {verdict}: {text(intent.rehearsal.message)}"
    if intent.outcome is not None:
        yield f"  - outcome: {in_words(intent.outcome.kind)}: {text(intent.outcome.message)}"


def _outcome(record: IncidentRecord) -> Iterator[str]:
    incident = record.incident
    if incident.verdict is not None:
        yield f"- Verdict: {in_words(incident.verdict.kind)}"
        yield from (f"  - {text(reason)}" for reason in incident.verdict.reasons)
    if incident.lesson is not None:
        worked = {None: "no action was taken", True: "yes", False: "no"}[incident.lesson.worked]
        yield f"- Did the action work: {worked}"
        if incident.lesson.seconds_to_recover is not None:
            yield f"- Recovered in: {span(timedelta(seconds=incident.lesson.seconds_to_recover))}"
    yield f"- Next: {text(next_step(incident))}"


def _timeline(entries: tuple[TimelineEntry, ...]) -> Iterator[str]:
    for entry in entries:
        yield f"- {stamp(entry.at)} ({entry.stage}): {text(entry.message)}"


def _proof(record: IncidentRecord) -> Iterator[str]:
    broken = first_broken(record.incident.id, record.timeline)
    intact = "intact" if broken is None else f"broken at entry {broken}"
    yield f"Hash chain of {len(record.timeline)} entries: {intact}."
    if record.timeline:
        yield f"Last hash: `{record.timeline[-1].hash}`"
