"""`heal export --sign` and `heal verify-export`: signed records are verified offline, altered ones found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app.store import open_store
from tests.contract.store_values import opened
from tests.sqlite_template import migrated
from tests.unit.heal_command import Heal


def _write_keys(folder: Path, name: str) -> None:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{name}.pem").write_bytes(private)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)


@pytest.fixture
async def incident_id(tmp_path: Path) -> str:
    """An incident in the store of an empty folder, with the keys of two people."""
    url = migrated(tmp_path / "heal.db")
    store = await open_store(url)
    incident = await opened(store)
    await store.close()
    (tmp_path / ".env").write_text(f"DATABASE_URL={url}\n")
    for name in ("ours", "other"):
        _write_keys(tmp_path, name)
    return incident.id


def test_a_signed_export_is_verified_offline(heal: Heal, incident_id: str, tmp_path: Path) -> None:
    """With the public key alone; every alteration, and every other key, is code 1."""
    assert heal("export", incident_id, "--sign", "--key", "ours.pem", "--to", "record.json").code == 0
    for file in tmp_path.glob("heal.db*"):
        file.unlink()
    (tmp_path / ".env").unlink()
    answer = heal("verify-export", "record.json", "--key", "ours.pub")
    assert answer.code == 0, answer
    assert f"Valid: {incident_id}, payments-api in prod, open" in answer.text
    assert "1 timeline entry is intact" in answer.text
    other = heal("verify-export", "record.json", "--key", "other.pub")
    assert (other.code, "was signed with the key" in other.text) == (1, True)
    whole = json.loads((tmp_path / "record.json").read_text())
    altered = [
        {**whole, "exported_at": "2026-01-01T00:00:00+00:00"},
        {**whole, "more": 1},
        {**whole, "incident": {**whole["incident"], "state": "recovered"}},
        {**whole, "signature": {**whole["signature"], "value": "AAAA"}},
        {**whole, "signature": {**whole["signature"], "value": "not base64"}},
        {**whole, "signature": None},
        {**whole, "format": "another"},
    ]
    for content in altered:
        (tmp_path / "altered.json").write_text(json.dumps(content))
        answer = heal("verify-export", "altered.json", "--key", "ours.pub")
        assert answer.code == 1, content
        assert "Traceback" not in answer.text
    (tmp_path / "reordered.json").write_text(json.dumps(dict(reversed(whole.items()))))
    assert heal("verify-export", "reordered.json", "--key", "ours.pub").code == 0


def test_a_timeline_that_was_altered_before_the_export_shows(
    heal: Heal, incident_id: str, tmp_path: Path
) -> None:
    """A valid signature does not hide a broken chain."""
    from app.cli.commands.export import exported, private_key
    from app.clock import SystemClock
    from app.schemas import IncidentView

    shown = json.loads(heal("show", incident_id, "-o", "json").out)
    shown["timeline"][0]["message"] = "nothing happened"
    text = exported(
        IncidentView.model_validate(shown), SystemClock().now(), private_key(tmp_path / "ours.pem")
    )
    (tmp_path / "record.json").write_text(text)
    answer = heal("verify-export", "record.json", "--key", "ours.pub")
    assert (answer.code, "altered before the export: entry 0" in answer.text) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("export", "ID", "--sign"), 2, "EXPORT_SIGNING_KEY_FILE"),
        (("export", "ID", "--sign", "--key", "ours.pub"), 1, "openssl genpkey"),
        (("export", "ID", "--sign", "--key", "none.pem"), 1, "cannot be read"),
        (("export", "ID", "--sign", "--key", "x.pem"), 1, "Ed25519 is required"),
        (("export", "ID"), 0, '"format": "self-healing-devops-agent/post-mortem/1"'),
        (("verify-export", ".env", "--key", "ours.pub"), 1, "is not JSON"),
        (("verify-export", "ours.pub", "--key", "ours.pem"), 1, "openssl pkey"),
    ],
)
def test_what_cannot_be_signed_or_verified(
    heal: Heal, incident_id: str, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    """Each failure names the fix."""
    foreign = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "x.pem").write_bytes(foreign)
    answer = heal(*(incident_id if one == "ID" else one for one in arguments))
    assert answer.code == code, answer
    assert says in answer.text
