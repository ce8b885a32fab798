"""Renders an incident in Slack's Block Kit. Pure.

Built by `slack`. What others wrote is always plain text with `&`, `<` and `>`
escaped, so that it contains no mention and no link, and every text, block and
list is within Slack's limits, for a message that is over them is not shown at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.agent.identity.people import wanted
from app.agent.ids import ApprovalId, JsonObject
from app.agent.models import (
    Approval,
    Incident,
    IncidentRecord,
    Intent,
)
from app.agent.notifications.channel import Bulletin, ThreadReply
from app.connectors.chat.links import Links
from app.connectors.chatops import planned, rehearsed, render, wanted_action
from app.connectors.text import shorten

APPROVE = "heal_approve"
DENY = "heal_deny"
OPEN = "heal_open"
"""A link button; Slack reports a click on it all the same."""

MAX_TEXT = 3_000
MAX_VALUE = 2_000
_MAX_HEADER = 150
_MAX_LABEL = 75
_MAX_LINKS = 10
_MAX_URL = 3_000
_MAX_FALLBACK = 3_000
_MAX_LINE = 400
_BODY_CHARS = 6_000
_PART_CHARS = 2_400
_REPLY_CHARS = 9_000
"""All parts together fill fewer than twenty blocks; Slack takes fifty."""
_MAX_LISTED = 8
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a message may lead to."""

    links: Links = field(default_factory=Links)
    """Where people reach the agent with a browser."""
    buttons: bool = False
    """Whether the agent receives button presses."""


def escaped(text: str, limit: int) -> str:
    """At most `limit` characters as they are sent, none of which means anything to Slack."""
    parts: list[str] = []
    length = 0
    for char in text:
        part = _ENTITIES.get(char, char)
        length += len(part)
        if length > limit:
            return _cut(parts, limit)
        parts.append(part)
    return "".join(parts)


def _cut(parts: list[str], limit: int) -> str:
    """End with a sign that something is missing; never inside an entity."""
    length = sum(map(len, parts))
    while parts and length > limit - 1:
        length -= len(parts.pop())
    return "".join((*parts, "…")) if limit > 0 else ""


def incident_blocks(bulletin: Bulletin, look: Look) -> list[JsonObject]:
    """The whole message: what happened and why, what is planned, done and asked."""
    record = bulletin.record
    message = render(record.incident, record.intents)
    blocks = [_header(message.title), *_sections(message.lines, _BODY_CHARS)]
    trials = [line for intent in record.intents for line in _rehearsal(intent)]
    if trials:
        blocks += [_heading("API server dry run"), *_sections(trials, _PART_CHARS)]
    asked = bulletin.asked
    if asked is not None:
        lines = _asking(record, asked)
        blocks += [_heading(":red_circle: Awaiting approval"), *_sections(lines, _BODY_CHARS)]
    buttons = [*_answers(bulletin, look), *_links(record.incident, asked, look)]
    if buttons:
        blocks.append({"type": "actions", "elements": [*buttons]})
    return blocks


def incident_text(bulletin: Bulletin) -> str:
    """For notifications, and where blocks are not shown."""
    record = bulletin.record
    message = render(record.incident, record.intents)
    asked = " Awaiting approval." if bulletin.asked is not None else ""
    return escaped(f"{message.title}.{asked} {shorten(record.incident.summary, _MAX_LINE)}", _MAX_FALLBACK)


def reply_blocks(reply: ThreadReply) -> list[JsonObject]:
    """An announcement may be long and is shown in full."""
    return _sections(reply.lines, _REPLY_CHARS, MAX_TEXT)


def reply_text(reply: ThreadReply) -> str:
    return escaped("\n".join(shorten(line, _MAX_LINE) for line in reply.lines), _MAX_FALLBACK) or "…"


def private_blocks(text: str, links: Sequence[tuple[str, str]]) -> list[JsonObject]:
    """A reply that only one person sees, with link buttons."""
    blocks = _sections(text.split("\n"), _REPLY_CHARS)
    buttons = _link_buttons(links)
    return [*blocks, {"type": "actions", "elements": [*buttons]}] if buttons else blocks


def button_value(approval_id: ApprovalId, nonce: str) -> str:
    """What a button carries: which request it answers, and what makes it count once."""
    return f"{approval_id}.{nonce}"


def read_value(value: str) -> tuple[ApprovalId, str] | None:
    """What a button carried; None for what no button of ours does."""
    approval_id, dot, nonce = value.partition(".")
    if len(value) > MAX_VALUE or not (approval_id and dot and nonce):
        return None
    return ApprovalId(approval_id), nonce


# ---------------------------------------------------------------- parts


def _header(title: str) -> JsonObject:
    return {"type": "header", "text": _plain(escaped(title, _MAX_HEADER) or "…")}


def _heading(own_words: str) -> JsonObject:
    return {"type": "section", "text": {"type": "mrkdwn", "text": f"*{own_words}*", "verbatim": True}}


def _plain(text: str) -> JsonObject:
    return {"type": "plain_text", "text": text, "emoji": False}


def _sections(lines: Iterable[str], budget: int, longest: int = _MAX_LINE) -> list[JsonObject]:
    """The lines, as many as the budget of characters holds, in as few blocks as they fit in."""
    texts: list[str] = []
    written, left_out = 0, 0
    for line in lines:
        text = escaped(shorten(line, longest), MAX_TEXT)
        if not text:
            continue
        if left_out or written + len(text) > budget:
            left_out += 1
            continue
        written += len(text) + 1
        if texts and len(texts[-1]) + 1 + len(text) <= MAX_TEXT:
            texts[-1] += f"\n{text}"
        else:
            texts.append(text)
    if left_out:
        texts.append(f"… and {left_out} more lines")
    if not texts:
        texts.append("…")
    return [{"type": "section", "text": _plain(text)} for text in texts]


def _rehearsal(intent: Intent) -> list[str]:
    if intent.rehearsal is None:
        return []
    verdict = "accepted" if intent.rehearsal.accepted else "rejected"
    on = f" {intent.action.target}" if intent.action.target is not None else ""
    return [f"{intent.action.words}{on}: {verdict} ({intent.rehearsal.message})"]


def _asking(record: IncidentRecord, asked: Approval) -> list[str]:
    lines = [f"Approve {wanted_action(record, asked)}?"]
    action = planned(record, asked)
    if action is not None:
        lines += [
            f"Expected effect: {action.expected_effect}",
            f"Undo: {action.undo}" if action.undo is not None else "Undo: not possible",
        ]
    lines.append(rehearsed(record, asked))
    lines += _listed("Reason", asked.reasons)
    lines.append(f"Answer by {_when(asked.expires_at)}{wanted(asked.terms)}")
    lines += _listed("Approved by", [f"{one.by}, {_when(one.at)}" for one in asked.answers if one.approve])
    lines.append(f"Request: {asked.id}")
    return lines


def _listed(what: str, entries: Sequence[str]) -> list[str]:
    shown = [f"{what}: {entry}" for entry in entries[:_MAX_LISTED]]
    more = len(entries) - len(shown)
    return [*shown, f"{what}: {more} more"] if more > 0 else shown


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _answers(bulletin: Bulletin, look: Look) -> list[JsonObject]:
    asked, nonce = bulletin.asked, bulletin.nonce
    if asked is None or nonce is None or not look.buttons:
        return []
    value = button_value(asked.id, nonce)
    if len(value) > MAX_VALUE:
        return []
    sure = f"The agent runs {asked.action.words} as planned if the preconditions still hold."
    return [
        {
            "type": "button",
            "action_id": APPROVE,
            "style": "primary",
            "text": _plain("Approve"),
            "value": value,
            "confirm": {
                "title": _plain("Approve this?"),
                "text": _plain(sure),
                "confirm": _plain("Approve"),
                "deny": _plain("Not yet"),
            },
        },
        {"type": "button", "action_id": DENY, "style": "danger", "text": _plain("Deny"), "value": value},
    ]


def _links(incident: Incident, asked: Approval | None, look: Look) -> list[JsonObject]:
    pages = [("Open the incident", look.links.incident(incident.id))]
    if asked is not None:
        pages.append(("Answer in the browser", look.links.approval(asked.id)))
    return _link_buttons([(words, url) for words, url in pages if url is not None])


def _link_buttons(pages: Sequence[tuple[str, str]]) -> list[JsonObject]:
    return [
        {
            "type": "button",
            "action_id": f"{OPEN}_{number}",
            "text": _plain(escaped(shorten(words), _MAX_LABEL) or "Open"),
            "url": url,
        }
        for number, (words, url) in enumerate(pages[:_MAX_LINKS])
        if len(url) <= _MAX_URL
    ]
