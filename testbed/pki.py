"""Certificates, tokens and kubeconfigs of one throw-away control plane. Called by `testbed.controlplane`."""

from __future__ import annotations

import base64
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from testbed import TestbedError

_SERVING_EXTENSIONS = (
    "extendedKeyUsage=serverAuth\nkeyUsage=digitalSignature\n"
    "subjectAltName=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,"
    "DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.0.0.1\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An identity of the cluster, authenticated by a static token."""

    name: str
    token: str
    groups: tuple[str, ...] = ()

    @classmethod
    def new(cls, name: str, *groups: str) -> User:
        """A user with a random token."""
        return cls(name=name, token=secrets.token_hex(16), groups=groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """Paths of the PEM files that the programs are started with."""

    ca: Path
    serving_certificate: Path
    serving_key: Path
    service_account_key: Path
    service_account_public_key: Path


def create_pki(folder: Path) -> Pki:
    """Make a CA, the API server's certificate and the service accounts' keys in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    ca, ca_key = folder / "ca.crt", folder / "ca.key"
    certificate, key, request = folder / "apiserver.crt", folder / "apiserver.key", folder / "apiserver.csr"
    account_key, account_public = folder / "sa.key", folder / "sa.pub"
    extensions = folder / "apiserver.ext"
    extensions.write_text(_SERVING_EXTENSIONS)
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        *["req", "-x509", *new_key, "-keyout", str(ca_key), "-out", str(ca), "-subj", "/CN=heal-testbed-ca"],
        *["-days", "30", "-addext", "keyUsage=critical,keyCertSign,cRLSign"],
    )
    _openssl("req", *new_key, "-keyout", str(key), "-out", str(request), "-subj", "/CN=kube-apiserver")
    _openssl(
        *["x509", "-req", "-in", str(request), "-CA", str(ca), "-CAkey", str(ca_key), "-CAcreateserial"],
        *["-out", str(certificate), "-days", "30", "-extfile", str(extensions)],
    )
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(account_key))
    _openssl("pkey", "-in", str(account_key), "-pubout", "-out", str(account_public))
    return Pki(
        ca=ca,
        serving_certificate=certificate,
        serving_key=key,
        service_account_key=account_key,
        service_account_public_key=account_public,
    )


def write_tokens(path: Path, users: Mapping[str, User]) -> None:
    """The API server's static token file."""
    lines = [
        f'{user.token},{user.name},{number},"{",".join(user.groups)}"'
        for number, user in enumerate(users.values(), start=1)
    ]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)


def write_kubeconfig(path: Path, *, server: str, ca: Path, user: User) -> None:
    """A self-contained kubeconfig with one context, readable by its owner alone."""
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca.read_bytes()).decode()}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": cluster}],
        "users": [{"name": user.name, "user": {"token": user.token}}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user.name}}],
        "current-context": "testbed",
    }
    path.write_text(yaml.safe_dump(content))
    path.chmod(0o600)


def _openssl(*arguments: str) -> None:
    try:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise TestbedError("openssl is not installed: apt-get install openssl") from None
    if done.returncode != 0:
        raise TestbedError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
