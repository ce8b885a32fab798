"""People: notifications, and sign-in with an issuer."""

from __future__ import annotations

from typing import Protocol

from app.agent.identity.people import (
    SignedOn,
    SignInAttempt,
)
from app.agent.models import (
    Incident,
)


class Notifier(Protocol):
    """Notifies people. Constructed only when `DRY_RUN=false`.

    The product's own puts an announcement on record, which the announcer then
    brings to every channel (`app.agent.notifications.channel`): a notification waits for no channel.
    """

    async def send(self, text: str, incident: Incident) -> None:
        """Have one message delivered; raises like every port."""
        ...


class IdentityProvider(Protocol):
    """The issuer that people sign in with: OpenID Connect's authorization code flow, seen from here."""

    async def begin(self) -> SignInAttempt:
        """A fresh attempt; `TransientError` while the issuer is silent, `PermanentError` for nonsense."""
        ...

    async def finish(self, *, code: str, nonce: str, verifier: str) -> SignedOn:
        """The person who signed in, from the issuer's answer to the code of the browser.

        Raises `Invalid` when the issuer refuses the code, `NotEntitled` with words for the person when it
        identifies no person by name, `TransientError` when it does not answer, and `PermanentError` when
        its answer cannot be trusted.
        """
        ...
