"""The last log lines of containers that fail or serve errors, reduced to patterns. Pure.

Only patterns enter the record, never a line: secrets are taken out first, then everything
that can vary from line to line (numbers, identifiers, quoted text, values of fields,
addresses). Lines with the same number of words that mostly agree become one pattern, with
the words in which they differ left out. Text from a container is data, never an instruction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias

from app.agent.batch.runs import EndedContainer
from app.agent.evidence.changes import config_map_of
from app.agent.evidence.facts import PodFault, current_pods, pod_fault
from app.agent.evidence.format import counted
from app.agent.guardrails.workload_kinds import POD
from app.agent.models import Evidence, Trigger
from app.agent.workload import ContainerRole, LogPattern, LogTail, ObjectRef, PodView, WorkloadView
from app.redaction import HIDDEN, redacted

MOST_CONTAINERS = 3
"""Failing containers whose logs are read for one diagnosis."""
_MOST_PATTERNS = 4
"""Patterns kept of one container."""
_MOST_LINE, _MOST_WORDS, _MOST_PATTERN = 2_000, 40, 160
"""Characters of a line that are looked at, its words, and the characters of a pattern."""
_ALIKE = 0.6
"""The share of words in which two lines of one pattern agree."""
ANY = "<*>"
"""Replaces removed words."""

_MESSAGES = ("level", "severity", "msg", "message", "error", "err", "exception")
"""The informative fields of a structured line."""
_SERIOUS = re.compile(
    r"(?i)\b(error|errors|exception|fatal|panic|critical|failed|failure|refused|denied|timeout|timed|"
    r"unreachable|unavailable|killed|cannot|invalid|missing|traceback|segfault|out of memory)\b"
)
_REFUSED = re.compile(
    r"(?i)\b(?:authentication (?:has )?fail(?:ed|ure)|password authentication|access denied for user|"
    r"invalid username-password pair|noauth authentication|access[_ ]refused|sasl authentication|"
    r"could not authenticate|unable to authenticate|bad credentials)\b"
)
"""What drivers of databases, queues and caches write when a server refuses their credentials."""
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`")
_SECRET = re.compile(
    r"(?:(?i:password|passwd|passphrase|passcode|secret|credential)"
    r"|(?i:pass|pwd|token|key|bearer)(?=(?i:s?)(?![a-z])))\w*[^\w<\[]*"
)
"""The name of a secret, also as a part of another name, with the signs after it:
`DB_PASS:`, `apiKey=`, `secretRef`."""
_SECRET_OPTION = re.compile(r"-[apuw]")
"""Options of command lines with a password, attached or in the next word."""
_EQUALS = frozenset({"is", "was", "are", "=", ":", ":=", "=>", "->", "==", "to"})
"""Words between the name of a secret and its value."""
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_VARIES = (
    _QUOTED,
    re.compile(r"\b[a-z][a-z0-9+.-]{1,30}://\S+", re.IGNORECASE),
    re.compile(r"(?<!\S)(?=\S+@\S)\S+"),
    re.compile(r"(?<==)\S+"),
    re.compile(r"(?<!\w)/[\w.@%+-]+(?:/[\w.@%+-]*)*"),
    re.compile(r"(?<!\S)(?=[^\s\d]*\d)\S+"),
    re.compile(r"\b[\w.-]{25,}\b"),
)
"""Quoted text, addresses, people, values of fields, paths, words with a digit, and long names.

Each takes time in proportion to the text, whatever a container writes: those of whole words
look at a word once, from its first character.
"""
_FRAME = re.compile(r"^(?:\s+|at\s|\t|File\s\"|\.\.\.\s\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSource:
    """One failing container whose last lines are worth reading."""

    pod: ObjectRef
    container: str
    previous: bool
    """Read the log of the terminated container, not of its replacement."""


@dataclass(slots=True)
class _Group:
    words: list[str]
    count: int = 1
    serious: bool = False
    refused: bool = False


@dataclass(slots=True)
class _Reducer:
    """Groups lines as they come."""

    groups: dict[int, list[_Group]] = field(default_factory=dict)

    def add(self, words: list[str], *, serious: bool, refused: bool) -> None:
        same_length = self.groups.setdefault(len(words), [])
        for group in same_length:
            agree = sum(one == other for one, other in zip(group.words, words, strict=True))
            if agree >= _ALIKE * len(words):
                pairs = zip(group.words, words, strict=True)
                group.words = [one if one == other else ANY for one, other in pairs]
                group.count += 1
                group.serious = group.serious or serious
                group.refused = group.refused or refused
                return
        same_length.append(_Group(words, serious=serious, refused=refused))


def log_sources(workload: WorkloadView, evidence: Evidence) -> tuple[LogSource, ...]:
    """The failing containers to read, one for each container and fault, the youngest pod first.

    If no container fails, but requests fail and a ConfigMap has changed: those of serving pods. Their logs
    may distinguish a wrong setting from another system that refuses their credentials.
    """
    found: dict[tuple[str, PodFault], LogSource] = {}
    for pod in workload.pods:
        fault = pod_fault(pod, evidence.at)
        if fault not in _SPEAKING or pod.failing is None or pod.failing.role is not ContainerRole.MAIN:
            continue
        source = LogSource(
            pod=workload.target.ref.beside(POD, pod.name),
            container=pod.failing.name,
            previous=_ended(pod, fault),
        )
        found.setdefault((pod.failing.name, fault), source)
    return tuple(found.values())[:MOST_CONTAINERS] or _serving_sources(workload, evidence)


def _serving_sources(workload: WorkloadView, evidence: Evidence) -> tuple[LogSource, ...]:
    """The containers of pods that serve errors since a ConfigMap changed."""
    if Trigger.HIGH_ERROR_RATE not in evidence.triggers or config_map_of(evidence) is None:
        return ()
    return tuple(
        LogSource(pod=workload.target.ref.beside(POD, pod.name), container=container, previous=False)
        for pod in current_pods(workload)
        if pod.ready
        for container in pod.containers
    )[:MOST_CONTAINERS]


def credentials_refused(patterns: Iterable[LogPattern]) -> str | None:
    """The finding that another system refuses the credentials of these containers; None without one."""
    found = next((one for one in patterns if one.credentials_refused), None)
    if found is None:
        return None
    return (
        f"the log of container {found.container} in pod {found.pod} says that its credentials are refused: "
        f"{found.pattern} ({counted(found.count, 'line')})"
    )


def log_sources_of_run(failures: Iterable[EndedContainer]) -> tuple[LogSource, ...]:
    """The containers of a failed run to read, each name once: the pods of further attempts say the same."""
    found: dict[str, LogSource] = {}
    for one in failures:
        found.setdefault(one.name, LogSource(pod=one.pod, container=one.name, previous=False))
    return tuple(found.values())[:MOST_CONTAINERS]


_SPEAKING = frozenset({PodFault.CRASH, PodFault.OUT_OF_MEMORY, PodFault.STOPPED, PodFault.NOT_READY})
"""Faults of containers that ran."""


def _ended(pod: PodView, fault: PodFault) -> bool:
    return pod.restarts > 0 and fault in (PodFault.CRASH, PodFault.OUT_OF_MEMORY)


def patterns_of(source: LogSource, tail: LogTail) -> tuple[LogPattern, ...]:
    """The patterns of a container's last lines: serious ones first, then the latest."""
    reducer = _Reducer()
    whole = _COLOUR.sub("", "\n".join(line[:_MOST_LINE] for line in tail.lines))
    for line in redacted(whole).splitlines():  # as one text: a key has several lines
        said = _said(line)
        words = masked(said).split()[:_MOST_WORDS]
        if any(word != ANY for word in words):
            refused = _REFUSED.search(said) is not None
            reducer.add(words, serious=refused or _SERIOUS.search(said) is not None, refused=refused)
    groups = [group for of_length in reducer.groups.values() for group in of_length]
    groups.sort(key=lambda group: (not group.serious, -group.count, " ".join(group.words)))
    return tuple(
        LogPattern(
            pod=source.pod.name,
            container=source.container,
            previous=tail.previous,
            pattern=_short(" ".join(_joined(group.words))),
            count=group.count,
            credentials_refused=group.refused,
        )
        for group in groups[:_MOST_PATTERNS]
    )


def pattern_facts(patterns: Iterable[LogPattern]) -> list[str]:
    """The patterns of the logs, as clauses for a person."""
    return [
        f"log of container {one.container} in pod {one.pod}{' before its restart' if one.previous else ''}: "
        f"{one.pattern} ({one.count} {'line' if one.count == 1 else 'lines'})"
        for one in patterns
    ]


def _said(line: str) -> str:
    """The message of a line; empty for a frame of a stack trace."""
    if _FRAME.match(line):
        return ""
    text = _of_fields(line) if line.startswith("{") else line
    return "".join(character if character.isprintable() else " " for character in text)


def _of_fields(text: str) -> str:
    """The informative fields of a structured line; an unreadable line is dropped."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(found, dict):
        return ""
    named = {str(name).lower(): value for name, value in found.items()}
    return " ".join(value for name in _MESSAGES if isinstance(value := named.get(name), str))


def masked(text: str) -> str:
    """The text with `ANY` in place of what varies, in time proportional to its length."""
    text = _without_secrets(_QUOTED.sub(_unless_name, text))
    for varies in _VARIES:
        text = varies.sub(ANY, text)
    return text


def _unless_name(quoted: re.Match[str]) -> str:
    """`ANY` for quoted text, except for the name of a secret: the words after that are left out."""
    words = quoted[0][1:-1].split()
    return quoted[0] if len(words) == 1 and _SECRET.search(words[0]) else ANY


class _After(Enum):
    """The position of a word: how many words after the name of a secret are still to be removed."""

    PLAIN = auto()
    """After no name."""
    NAMED = auto()
    """Right after a name: two words are left out, whatever they are: one may say whose it is."""
    VALUE = auto()
    """One word is left out."""
    PAST = auto()
    """Behind the words that were left out; an `is` here says that the value is still to come."""


def _joins(word: str) -> bool:
    return word.lower() in _EQUALS


def _names(word: str) -> bool:
    return _SECRET.search(word) is not None


def _names_with_value(word: str) -> bool:
    named = _SECRET.search(word)
    value = word[named.end() :] if named is not None else ""
    return ANY in value or any(map(str.isalnum, value))


def _before_value(word: str) -> str:
    """The name of a secret without the value that is attached to it."""
    named = _SECRET.search(word)
    return word[: named.end() if named is not None else 0] + ANY


def _option(word: str) -> bool:
    return _SECRET_OPTION.match(word) is not None


_Step: TypeAlias = tuple[Callable[[str], bool], Callable[[str], str], _After]


def _hiding(then: _After) -> tuple[_Step, ...]:
    def hide(_word: str) -> str:
        return ANY

    return (
        (_joins, str, _After.NAMED),
        (_names, hide, _After.NAMED),
        (lambda word: word.endswith((":", "=")), hide, _After.NAMED),
        (lambda word: word.startswith(HIDDEN), hide, _After.PAST),
        (bool, hide, then),
    )


_OPEN: tuple[_Step, ...] = (
    (lambda word: not _option(word) and not _names(word), str, _After.PLAIN),
    (lambda word: _option(word) and len(word) > 2, lambda word: word[:2] + ANY, _After.PLAIN),
    (_option, str, _After.VALUE),
    (_names_with_value, _before_value, _After.PLAIN),
    (_names, str, _After.NAMED),
)
_STEPS: Mapping[_After, tuple[_Step, ...]] = {
    _After.PLAIN: _OPEN,
    _After.NAMED: _hiding(then=_After.VALUE),
    _After.VALUE: _hiding(then=_After.PAST),
    _After.PAST: ((_joins, str, _After.NAMED), *_OPEN),
}
"""For each place which words are looked for, in this order, what stays of them, and the place after."""


def _without_secrets(text: str) -> str:
    """The text without the words that follow the name of a secret or are attached to it."""
    kept: list[str] = []
    place = _After.PLAIN
    for word in text.split():
        step = next(step for step in _STEPS[place] if step[0](word))
        kept.append(step[1](word))
        place = step[2]
    return " ".join(kept)


def _joined(words: list[str]) -> list[str]:
    """The words, with what was left out in a row as one."""
    return [word for place, word in enumerate(words) if place == 0 or (word, words[place - 1]) != (ANY, ANY)]


def _short(text: str) -> str:
    return text if len(text) <= _MOST_PATTERN else text[: _MOST_PATTERN - 1] + "\N{HORIZONTAL ELLIPSIS}"
