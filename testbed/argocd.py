"""A real Argo CD on the bed's control plane: API server, repo server, application controller.

Built from its Go module with the versions of `argocd/go.mod`. The release's own module
names a folder that is not published with it (gitops-engine), so that part comes from a
published commit: the build is not exactly the release. It runs outside the cluster with
the bed's kubeconfig, as `docs/testing.md` describes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import yaml
from lightkube import Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.core_v1 import ConfigMap, Namespace, Secret

from testbed import TestbedError
from testbed.binaries import go_program, locked
from testbed.controlplane import ControlPlane
from testbed.ports import free_ports
from testbed.redis import RedisServer
from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for

MODULE = Path(__file__).parent / "argocd"
PACKAGE = "github.com/argoproj/argo-cd/v3"
NAMESPACE = "argocd"
PASSWORD = "not-a-secret"  # noqa: S105 - of a throw-away server
CRDS = ("application-crd.yaml", "applicationset-crd.yaml", "appproject-crd.yaml")
_START_SECONDS = 120.0
_RBAC = """\
p, role:agent, applications, get, */*, allow
p, role:agent, applications, update, */*, allow
p, role:agent, applications, sync, */*, allow
p, role:limited, applications, get, */*, allow
p, role:limited, applications, sync, */*, allow
g, heal, role:agent
g, limited, role:limited
"""


def argocd_version() -> str:
    """The version that `argocd/go.mod` asks for, such as `v3.5.7`."""
    found = re.search(
        rf"^require {re.escape(PACKAGE)} (v\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE
    )
    if found is None:
        raise TestbedError(f"{MODULE / 'go.mod'} does not require {PACKAGE}")
    return found.group(1)


def ensure_argocd(tell: Callable[[str], None] = print) -> Path:
    """The program with its CRDs beside it: from the cache, else built now (minutes, 2 GB)."""
    root = os.environ.get("HEAL_TESTBED_CACHE")
    folder = (Path(root) if root else Path.home() / ".cache" / "heal-testbed") / f"argocd-{argocd_version()}"
    program = folder / "argocd"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        if not all((folder / name).is_file() for name in CRDS):
            module = _go("list", "-m", "-f", "{{.Dir}}", PACKAGE) or _go_download()
            for name in CRDS:
                shutil.copyfile(Path(module) / "manifests" / "crds" / name, folder / name)
        if not os.access(program, os.X_OK):
            tell(f"building Argo CD {argocd_version()} into {folder}; this happens once")
            unfinished = folder / ".argocd.building"
            stamp = f"-s -w -X {PACKAGE}/common.version={argocd_version().removeprefix('v')}"
            _go("build", "-trimpath", "-ldflags", stamp, "-o", str(unfinished), f"{PACKAGE}/cmd")
            unfinished.replace(program)
    return program


def _go_download() -> str:
    _go("mod", "download", PACKAGE)
    return _go("list", "-m", "-f", "{{.Dir}}", PACKAGE)


def _go(*arguments: str) -> str:
    done = subprocess.run(
        [go_program(), *arguments],
        cwd=MODULE,
        env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=readonly"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise TestbedError(f"go {arguments[0]} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout.strip()


@dataclass(kw_only=True)
class ArgoCd:
    """The three servers of one Argo CD, and its Redis."""

    control_plane: ControlPlane
    supervisor: Supervisor
    folder: Path
    port: int = 0
    _processes: list[Process] = field(default_factory=list)
    _redis: RedisServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Install the CRDs and settings, and start; returns when the API server answers."""
        program = ensure_argocd()
        self._install(self.control_plane.client(), program)
        self._redis = RedisServer(supervisor=self.supervisor, directory=self.folder)
        self._redis.start()
        repo, repo_metrics, self.port, metrics, controller = free_ports(5)
        redis = f"127.0.0.1:{self._redis.port}"
        plain = ["--redis", redis, "--repo-server", f"127.0.0.1:{repo}", "--repo-server-plaintext"]
        self._run(
            program,
            "argocd-repo-server",
            *("--disable-tls", "--client-ca-path=", "--redis", redis),
            *("--address", "127.0.0.1", "--port", str(repo), "--metrics-port", str(repo_metrics)),
        )
        self._run(
            program,
            "argocd-server",
            *("--insecure", "--dex-server", "http://127.0.0.1:1", "--namespace", NAMESPACE, *plain),
            *("--address", "127.0.0.1", "--port", str(self.port), "--metrics-port", str(metrics)),
        )
        self._run(
            program,
            "argocd-application-controller",
            *("--app-resync", "10", "--app-resync-jitter", "0", "--namespace", NAMESPACE, *plain),
            *("--metrics-port", str(controller)),
        )
        wait_for("Argo CD to answer", self._answers, timeout_seconds=_START_SECONDS)

    def stop(self) -> None:
        """Safe to repeat."""
        for process in self._processes:
            process.stop()
        if self._redis is not None:
            self._redis.kill()

    def token(self, account: str) -> str:
        """A session of an account: `admin`, `heal`, or `limited` (no right to update)."""
        answer = httpx2.post(
            f"{self.url}/api/v1/session", json={"username": account, "password": PASSWORD}, timeout=60
        )
        token: str = answer.raise_for_status().json()["token"]
        return token

    def log(self) -> str:
        """What the API server wrote."""
        return (self.folder / "argocd-server.log").read_text(errors="replace")

    def writes(self, application: str) -> list[str]:
        """The calls that change an application, in order, from the API server's log."""
        found = []
        for line in self.log().splitlines():
            called = _CALL.search(line)
            if called is not None and f'"{application}"' in line.replace("\\", ""):
                found.append(called[1])
        return found

    def _answers(self) -> bool | NotYet:
        for process in self._processes:
            process.check()
        try:
            answer = httpx2.get(f"{self.url}/api/version", timeout=5)
        except httpx2.HTTPError as error:
            return NotYet(str(error))
        return True if answer.status_code == 200 else NotYet(answer.text[:200])

    def _run(self, program: Path, name: str, *arguments: str) -> None:
        home = self.folder / name
        tools = home / "bin"
        tools.mkdir(parents=True)
        verify = tools / "git-verify-wrapper.sh"
        verify.write_text("#!/bin/sh\nexit 0\n")
        verify.chmod(0o755)
        own = {}
        for variable, part in _OWN_FOLDERS.items():
            (home / part).mkdir(exist_ok=True)
            own[variable] = str(home / part)
        env = {
            **own,
            "ARGOCD_BINARY_NAME": name,
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_GPG_ENABLED": "false",
            "KUBECONFIG": str(self.control_plane.kubeconfig("admin")),
            "PATH": f"{tools}:{os.environ['PATH']}",
        }
        process = self.supervisor.start(
            name, [str(program), *arguments], log=self.folder / f"{name}.log", env=env
        )
        self._processes.append(process)

    def _install(self, client: Client, program: Path) -> None:
        for name in CRDS:
            found = yaml.safe_load((program.parent / name).read_text())
            definition = CustomResourceDefinition.from_dict(found)
            if isinstance(definition, CustomResourceDefinition):
                client.create(definition)
            client.wait(CustomResourceDefinition, found["metadata"]["name"], for_conditions=["Established"])
        client.create(Namespace(metadata=ObjectMeta(name=NAMESPACE)))
        part = {"app.kubernetes.io/part-of": "argocd"}

        def meta(name: str) -> ObjectMeta:
            return ObjectMeta(name=name, namespace=NAMESPACE, labels=part)

        accounts = {"accounts.heal": "login", "accounts.limited": "login"}
        for name, data in {
            "argocd-cm": accounts,
            "argocd-rbac-cm": {"policy.csv": _RBAC},
            "argocd-cmd-params-cm": {},
            "argocd-tls-certs-cm": {},
            "argocd-ssh-known-hosts-cm": {},
            "argocd-gpg-keys-cm": {},
        }.items():
            client.create(ConfigMap(metadata=meta(name), data=data))
        hashed = _bcrypt(program)
        secret = {"server.secretkey": "a-key-of-a-throw-away-server"}
        for account in ("admin", "accounts.heal", "accounts.limited"):
            secret |= {f"{account}.password": hashed, f"{account}.passwordMtime": "2026-01-01T00:00:00Z"}
        client.create(Secret(metadata=meta("argocd-secret"), stringData=secret))


_CALL = re.compile(
    r"received unary call /application\.ApplicationService/(Patch|Rollback|Sync|UpdateSpec|Update)\b"
)
"""How the API server logs a call, beside the request's content."""

_OWN_FOLDERS = {
    "HOME": "home",
    "TMPDIR": "tmp",
    "ARGOCD_TLS_DATA_PATH": "tls",
    "ARGOCD_SSH_DATA_PATH": "ssh",
    "ARGOCD_GPG_DATA_PATH": "gpg",
    "ARGOCD_GNUPGHOME": "gnupg",
}


def _bcrypt(program: Path) -> str:
    """The password as Argo CD keeps it, by its own command."""
    done = subprocess.run(
        [str(program), "account", "bcrypt", "--password", PASSWORD],
        env={**os.environ, "ARGOCD_BINARY_NAME": "argocd"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
