"""How a command says that it cannot do what was asked."""

from __future__ import annotations


class CommandFailed(Exception):
    """The message is for a person and names the fix; `app.cli` prints it and exits with 1."""


class NotOnRecord(CommandFailed):
    """What was asked for does not exist; it is not merely out of reach."""
