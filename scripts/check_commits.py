"""Checks commit messages: `area: what`, at most 72 characters, imperative, then an empty line and the reason.

`python -m scripts.check_commits` checks every commit since the
rule was introduced; `make lint` calls it. `python -m scripts.check_commits FILE` checks one
message, as git's commit-msg hook does. Git's own messages for merges and reverts
pass. Without git, and in a clone too shallow to hold that commit, nothing is checked.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RULE_HOLDS_AFTER = "c545c4c4defd285ec76cca76668fb6cbe833d3f3"
LONGEST_SUBJECT = 72

_SUBJECT = re.compile(r"(?P<area>[a-z0-9][a-z0-9 ,._/-]*): (?P<what>\S.*)")
_FROM_GIT = re.compile(r"Merge |Revert \"")
_INFLECTED = re.compile(r"(?:[a-z]{2,}ed|[a-z]{2,}ing|[a-z]+[^s]s)")
_LOOKS_INFLECTED = re.compile(
    r"bring|embed|exceed|feed|focus|need|ping|proceed|seed|shed|speed|spring|string"
)
"""Imperatives all the same."""
_NO_VERB = re.compile(
    r"an?|all|and|are|as|at|by|each|every|for|from|how|if|in|is|its?|no|not|of|on|one|only|our|some|that|the"
    r"|their|there|these|they|this|to|was|we|what|when|where|which|who|why|with|without"
)


def problems(message: str) -> Iterator[str]:
    """What is wrong with a commit message, in words; nothing when it is fine."""
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    subject = lines[0].strip() if lines else ""
    if _FROM_GIT.match(subject):
        return
    if len(subject) > LONGEST_SUBJECT:
        yield f"the subject has {len(subject)} characters, at most {LONGEST_SUBJECT} are allowed"
    if len(lines) > 1 and lines[1].strip():
        yield "the second line is not empty"
    parts = _SUBJECT.fullmatch(subject)
    if parts is None:
        yield "the subject is not `area: what`, with the area in lower case"
        return
    what = parts["what"]
    verb = what.split()[0]
    if not verb.isascii() or not verb[0].islower():
        yield f"`{verb}` does not start with a lower-case letter: begin with a verb, such as `add`"
    elif _NO_VERB.fullmatch(verb) or (_INFLECTED.fullmatch(verb) and not _LOOKS_INFLECTED.fullmatch(verb)):
        yield f"`{verb}` is not an imperative: begin with a verb in its plain form, such as `add`"
    if what.endswith("."):
        yield "the subject ends with a full stop"


def messages(folder: Path, after: str = RULE_HOLDS_AFTER) -> dict[str, str] | None:
    """The messages of all commits of HEAD after `after`, by hash; None where git cannot name them."""
    form = "%H%n%B%x00"
    try:
        asked = subprocess.run(
            ["git", "log", f"--format={form}", f"{after}..HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    if asked.returncode != 0:
        return None
    entries = [entry.lstrip("\n") for entry in asked.stdout.split("\0") if entry.strip()]
    return {entry.partition("\n")[0]: entry.partition("\n")[2] for entry in entries}


def main(arguments: list[str]) -> int:
    """Check one message, or the history; 1 when anything is wrong."""
    if arguments:
        history: dict[str, str] | None = {"": Path(arguments[0]).read_text()}
    else:
        history = messages(ROOT)
    if history is None:
        print("commit messages: not checked (no git, or a shallow clone)")
        return 0
    wrong = False
    for commit, message in history.items():
        for problem in problems(message):
            subject = message.partition("\n")[0]
            print(f"{commit[:9]} {subject}\n  {problem}".lstrip(), file=sys.stderr)
            wrong = True
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
