"""Connections by https check the certificate; the system's authorities are read once for all of them."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from app.cli.commands.agent_client import RunningAgent
from app.cli.commands.errors import CommandFailed
from app.connectors.http import HttpPeer, system_trust
from app.connectors.sso.transport import IssuerTransport
from app.errors import TransientError

ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server whose certificate no authority of the system has signed."""

    port: int
    certificate: Path
    answered: list[bytes]

    @property
    def url(self) -> str:
        return f"https://{ADDRESS}:{self.port}"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    answered: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, ADDRESS, 0, ssl=context)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield Server(port=port, certificate=certificate, answered=answered)


@pytest.fixture
def authorities_read_again() -> Iterator[None]:
    """The context of this process is that of the test, and of no other test."""
    system_trust.cache_clear()
    yield
    system_trust.cache_clear()


def peer(url: str) -> HttpPeer:
    return HttpPeer(name="the hook", setting="HOOK_URL", url=url, timeout_seconds=60)


async def test_a_connector_refuses_a_certificate_of_an_unknown_authority(server: Server) -> None:
    hook = peer(server.url)
    with pytest.raises(TransientError, match="HOOK_URL"):
        await hook.send("GET")
    await hook.aclose()
    assert server.answered == []


async def test_sign_in_refuses_a_certificate_of_an_unknown_authority(server: Server) -> None:
    with pytest.raises(TransientError, match="cannot be reached"):
        await IssuerTransport(timeout_seconds=60).get_json(server.url)
    assert server.answered == []


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
async def test_a_command_refuses_a_certificate_of_an_unknown_authority(server: Server, scheme: str) -> None:
    agent = RunningAgent(base=f"{scheme}://{ADDRESS}:{server.port}", required=True, token=None)
    with pytest.raises(CommandFailed, match="no agent answers"):
        await agent.ask("/incidents")
    assert server.answered == []


@pytest.mark.usefixtures("authorities_read_again")
async def test_the_authorities_are_read_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
    first = peer(server.url)
    monkeypatch.delenv("SSL_CERT_FILE")
    for hook in (first, peer(server.url)):
        assert (await hook.send("GET")).status == 200
        await hook.aclose()
    assert await IssuerTransport(timeout_seconds=60).get_json(server.url) == {}
    assert len(server.answered) == 3


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Files of a certificate that signs itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ADDRESS)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(ADDRESS))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    found = folder / "server.pem", folder / "server.key"
    found[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    found[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return found
