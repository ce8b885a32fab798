"""The author of a command that writes directly to the database, because no agent responds.

A name cannot stop a person with write access to the database; this keeps the record
correct: with required identity, only authenticated names are recorded.
"""

from __future__ import annotations

import getpass
import os
import pwd
from datetime import UTC, datetime

from app.agent.identity.people import Door, Person, Scope, same_person
from app.agent.identity.tokens import holder, proved
from app.agent.ports.store.people import CredentialRepository
from app.cli.commands.errors import CommandFailed
from app.config import Settings


async def speaker(
    settings: Settings, credentials: CredentialRepository, by: str | None, scope: Scope
) -> Person:
    """The holder of HEAL_TOKEN, or, while identity is not required, the person named."""
    if settings.heal_token is not None:
        return await _holder(settings, credentials, by, scope)
    if settings.identity_required:
        raise CommandFailed("identity is required: set HEAL_TOKEN to a token of yours")
    return Person(name=by or shell_user(), door=Door.CLI)


def shell_user() -> str:
    """The user of the shell, as named by the operating system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        raise CommandFailed("the user of this shell has no name; say who it is with --by") from None


def system_user() -> str:
    """The user that this process runs as, from its user id: `ann (uid 1000)`.

    `shell_user` follows LOGNAME and USER, which anyone can set; this does not.
    """
    uid = os.getuid()
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


async def _holder(
    settings: Settings, credentials: CredentialRepository, by: str | None, scope: Scope
) -> Person:
    assert settings.heal_token is not None  # noqa: S101 - narrows the type; the caller looked
    credential = await proved(credentials, settings.heal_token.get_secret_value())
    ended = credential.refusal(datetime.now(UTC)) if credential is not None else "the agent does not know it"
    if credential is None or ended is not None:
        raise CommandFailed(f"HEAL_TOKEN is not valid: {ended}")
    person = holder(credential, settings.role_scopes, door=Door.CLI)
    if by is not None and not same_person(by, person.name):
        raise CommandFailed(f"--by {by!r} is not {person.name}, whose token HEAL_TOKEN is; leave it out")
    if not person.may(scope):
        raise CommandFailed(f"the token of {person.name} lacks the scope {scope}")
    return person
