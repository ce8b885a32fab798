"""`heal export` and `heal verify-export`: the whole record of an incident as a file, signed with Ed25519.

A signed file is verified offline with the public key: the signature covers the
canonical JSON of everything beside it, and the hash chain of the timeline is checked too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from app.agent.evidence.format import counted
from app.cli.commands.errors import CommandFailed
from app.cli.commands.incidents import broken_entry
from app.hash_chain import canonical
from app.schemas import IncidentView
from app.wire.strict_json import UnreadableJson, decode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FORMAT = "self-healing-devops-agent/post-mortem/1"
_MOST_BYTES = 256 * 1024 * 1024
_MOST_KEY_BYTES = 64 * 1024


def exported(incident: IncidentView, at: datetime, key: Ed25519PrivateKey | None) -> str:
    """The file: the incident as the API shows it, with a signature if a key is given."""
    content: dict[str, object] = {
        "format": FORMAT,
        "exported_at": at.astimezone(UTC).isoformat(),
        "incident": incident.model_dump(mode="json"),
    }
    if key is not None:
        content["signature"] = {
            "algorithm": "Ed25519",
            "key_id": key_id(key.public_key()),
            "value": base64.b64encode(key.sign(canonical(content))).decode(),
        }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def verified(file: Path, key: Ed25519PublicKey) -> str:
    """What the file is, in a sentence; raises `CommandFailed` if it is not what was signed."""
    from cryptography.exceptions import InvalidSignature

    content = _content(file)
    signature = content.pop("signature", None)
    if content.get("format") != FORMAT or not isinstance(signature, dict):
        raise CommandFailed(
            f"{file} is not a signed export of a post-mortem; `heal export ID --sign` writes one"
        )
    if signature.get("key_id") != key_id(key):
        raise CommandFailed(
            f"{file} was signed with the key {signature.get('key_id')!s:.64}, not with {key_id(key)}"
        )
    try:
        key.verify(base64.b64decode(str(signature.get("value")), validate=True), canonical(content))
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise CommandFailed(f"{file} was altered: the signature does not match its content") from error
    try:
        incident = IncidentView.model_validate(content.get("incident"))
    except ValidationError as error:
        raise CommandFailed(
            f"{file} is of another version of the agent: {error.error_count()} fields"
        ) from error
    broken = broken_entry(incident)
    if broken is not None:
        raise CommandFailed(f"the timeline in {file} was altered before the export: entry {broken}")
    return (
        f"Valid: {incident.id}, {incident.service} in {incident.environment}, {incident.state}; exported at "
        f"{content['exported_at']}, signed with {key_id(key)}. The hash chain of "
        f"{counted(len(incident.timeline), 'timeline entry', 'timeline entries')} is intact."
    )


def private_key(file: Path) -> Ed25519PrivateKey:
    """The signing key from a PEM file; raises `CommandFailed` with the command that makes one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(_key_bytes(file), password=None)
    except (ValueError, TypeError) as error:
        raise CommandFailed(
            f"{file} is not an unencrypted private key in PEM; make one with "
            f"`openssl genpkey -algorithm ed25519 -out {file.name}`"
        ) from error
    if not isinstance(found, Ed25519PrivateKey):
        raise CommandFailed(f"{file} is a key of another algorithm; Ed25519 is required")
    return found


def public_key(file: Path) -> Ed25519PublicKey:
    """The key to verify with, from a PEM file; raises `CommandFailed` with the command that makes one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found = load_pem_public_key(_key_bytes(file))
    except ValueError as error:
        raise CommandFailed(
            f"{file} is not a public key in PEM; make it from the private key with "
            "`openssl pkey -in KEY -pubout`"
        ) from error
    if not isinstance(found, Ed25519PublicKey):
        raise CommandFailed(f"{file} is a key of another algorithm; Ed25519 is required")
    return found


def key_id(key: Ed25519PublicKey) -> str:
    """The beginning of the SHA-256 of the public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _content(file: Path) -> dict[str, Any]:
    try:
        found = decode(_bytes(file, _MOST_BYTES))
    except UnreadableJson as error:
        raise CommandFailed(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise CommandFailed(f"{file} is not an export of a post-mortem")
    return dict(found)


def _key_bytes(file: Path) -> bytes:
    return _bytes(file, _MOST_KEY_BYTES)


def _bytes(file: Path, most: int) -> bytes:
    try:
        with file.open("rb") as stream:
            found = stream.read(most + 1)
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}") from error
    if len(found) > most:
        raise CommandFailed(f"{file} is larger than {most:,} bytes")
    return found
