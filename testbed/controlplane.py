"""A real Kubernetes control plane on loopback: etcd, API server, controller manager, scheduler.

`testbed.world` composes it with a stand-in kubelet; tests that need no pods use
it alone. State is thrown away when it stops, so durability is switched off.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import ssl
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType

import httpx2
import lightkube
from lightkube import Client, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import ConfigMap, ServiceAccount

from testbed import TestbedError, rbac
from testbed.audit import POLICY, AuditEvent, read_audit_log
from testbed.binaries import Binaries, ensure_binaries
from testbed.pki import Pki, User, create_pki, write_kubeconfig, write_tokens
from testbed.ports import start_on_free_ports
from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for

_READY_SECONDS = 90.0
_MASTERS = "system:masters"
_CONTROLLER_MANAGER = "system:kube-controller-manager"
_SCHEDULER = "system:kube-scheduler"
_CONTROLLERS = tuple(
    f"{name}-controller"
    for name in (
        *["deployment", "replicaset", "statefulset", "daemonset", "job"],
        *["namespace", "serviceaccount", "root-ca-certificate-publisher"],
        *["garbage-collector", "pod-garbage-collector", "node-lifecycle", "taint-eviction"],
        *["disruption", "endpointslice", "horizontal-pod-autoscaler", "clusterrole-aggregation"],
    )
)


class ControlPlane:
    """Start, use, stop; also a context manager. All processes die with the one that made it."""

    def __init__(
        self,
        *,
        binaries: Binaries | None = None,
        folder: Path | None = None,
        supervisor: Supervisor | None = None,
        audit_policy: str = POLICY,
        controllers: bool = True,
        without: Collection[str] = (),
        apiserver_flags: Sequence[str] = (),
    ) -> None:
        """The caller keeps `folder`; without one a temporary folder is used and removed.

        `without` names controllers that are left out, for what plays their part itself.

        Without `controllers` there are etcd and the API server alone: nothing changes by itself.
        """
        self._audit_policy = audit_policy
        self._controllers = controllers
        self._without = frozenset(without)
        self._more_flags = tuple(apiserver_flags)
        self._binaries = binaries
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="heal-testbed-"))
        self._own_supervisor = supervisor is None
        self.supervisor = supervisor or Supervisor()
        self._processes: list[Process] = []
        self._clients: dict[str, Client] = {}
        self.url = ""
        self.users = {
            user.name: user
            for user in (
                User.new(rbac.ADMIN, _MASTERS),
                User.new(rbac.AGENT),
                User.new(rbac.READONLY),
                User.new(rbac.NOBODY),
                User.new(rbac.NO_PODS),
                User.new(rbac.KUBELET, _MASTERS),
                User.new(rbac.FLEET),
                User.new(_CONTROLLER_MANAGER, _MASTERS),
                User.new(_SCHEDULER),
            )
        }

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -------------------------------------------------------------- life

    def start(self) -> None:
        """Return when requests are served and controllers work; whatever fails, nothing is left running."""
        try:
            binaries = self._binaries or ensure_binaries()
            self.folder.mkdir(parents=True, exist_ok=True)
            pki = create_pki(self.folder / "pki")
            write_tokens(self.folder / "tokens.csv", self.users)
            (self.folder / "audit-policy.yaml").write_text(self._audit_policy)
            self._start_servers(binaries, pki)
            rbac.create_roles(self.client())
            if self._controllers:
                self._start_controllers(binaries, pki)
                self.wait_for_default_account("default")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill everything and remove a temporary folder. Safe to repeat."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self._stop_processes()
        if self._own_supervisor:
            self.supervisor.close()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _stop_processes(self) -> None:
        with contextlib.suppress(TestbedError):  # the supervisor being gone, nothing runs any more
            while self._processes:
                self._processes.pop().stop()

    def _start_servers(self, binaries: Binaries, pki: Pki) -> None:
        def start(ports: tuple[int, ...]) -> None:
            etcd_port, peer_port, port = ports
            self.url = f"https://127.0.0.1:{port}"
            for user in self.users.values():
                write_kubeconfig(self.kubeconfig(user.name), server=self.url, ca=pki.ca, user=user)
            self._run(binaries, "etcd", *_etcd_flags(self.folder / "etcd", etcd_port, peer_port))
            self._run(binaries, "kube-apiserver", *self._apiserver_flags(pki, port, etcd_port))
            wait_for("the API server's /readyz", self._readyz(pki), timeout_seconds=_READY_SECONDS)

        def abandon() -> None:
            self._stop_processes()
            shutil.rmtree(self.folder / "etcd", ignore_errors=True)

        start_on_free_ports(3, start, abandon)

    def _start_controllers(self, binaries: Binaries, pki: Pki) -> None:
        common = ["--leader-elect=false", "--secure-port=0", "--profiling=false"]
        common += ["--kube-api-qps=500", "--kube-api-burst=1000"]
        kubeconfig, root_ca = (
            f"--kubeconfig={self.kubeconfig(_CONTROLLER_MANAGER)}",
            f"--root-ca-file={pki.ca}",
        )
        controllers = "--controllers=" + ",".join(c for c in _CONTROLLERS if c not in self._without)
        self._run(binaries, "kube-controller-manager", kubeconfig, root_ca, controllers, *common)
        self._run(binaries, "kube-scheduler", f"--kubeconfig={self.kubeconfig(_SCHEDULER)}", *common)

    def _run(self, binaries: Binaries, name: str, *flags: str) -> None:
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        self._processes.append(self.supervisor.start(name, [binaries.path(name), *flags], log=log))

    def _apiserver_flags(self, pki: Pki, port: int, etcd_port: int) -> list[str]:
        return [
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--anonymous-auth=false",
            f"--tls-cert-file={pki.serving_certificate}",
            f"--tls-private-key-file={pki.serving_key}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki.service_account_public_key}",
            f"--service-account-signing-key-file={pki.service_account_key}",
            f"--audit-policy-file={self.folder / 'audit-policy.yaml'}",
            f"--audit-log-path={self.audit_log}",
            "--profiling=false",
            *self._more_flags,
        ]

    def _readyz(self, pki: Pki) -> Callable[[], bool | NotYet]:
        token = self.users[rbac.ADMIN].token
        context = ssl.create_default_context(cafile=str(pki.ca))

        def check() -> bool | NotYet:
            self.check()
            try:
                answer = httpx2.get(
                    f"{self.url}/readyz",
                    headers={"Authorization": f"Bearer {token}"},
                    verify=context,
                    timeout=2,
                )
            except httpx2.HTTPError as error:
                return NotYet(f"{type(error).__name__}: {error}")
            return True if answer.status_code == 200 else NotYet(f"{answer.status_code} {answer.text}")

        return check

    # -------------------------------------------------------------- use

    def check(self) -> None:
        """Raise `TestbedError`, with the end of its log, when a process has died."""
        for process in self._processes:
            process.check()

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of `admin`, `agent`, `readonly` or `nobody` (see `testbed.rbac`)."""
        if user not in self.users:
            raise TestbedError(f"no user {user!r}; there are: {', '.join(self.users)}")
        return self.folder / f"{user.removeprefix('system:')}.kubeconfig"

    def client(self, user: str = rbac.ADMIN) -> Client:
        """A blocking client that acts as that user; closed when the control plane stops."""
        if user not in self._clients:
            config = KubeConfig.from_file(self.kubeconfig(user))
            self._clients[user] = lightkube.Client(config=config, field_manager="testbed")
        return self._clients[user]

    @property
    def audit_log(self) -> Path:
        """One JSON object a line, for each answered write."""
        return self.folder / "audit.log"

    def audit_events(self) -> tuple[AuditEvent, ...]:
        """Every write answered before this call, oldest first, the bed's own included.

        A harmless request of its own, a dry run on an object that does not
        exist, marks the place in the log up to which the answer is complete.
        """
        mark = f"audit-mark-{secrets.token_hex(8)}"
        with contextlib.suppress(ApiError):
            self.client().delete(ConfigMap, mark, namespace="default", dry_run=True)

        def check() -> tuple[AuditEvent, ...] | NotYet:
            events = read_audit_log(self.audit_log)
            return events if any(event.name == mark for event in events) else NotYet(f"{len(events)} events")

        events = wait_for("the audit log to be complete", check, timeout_seconds=10, interval_seconds=0.02)
        return tuple(event for event in events if not event.name.startswith("audit-mark-"))

    def wait_for_default_account(self, namespace: str) -> None:
        """Until pods can be created there: admission asks for the service account `default`."""

        def check() -> bool | NotYet:
            self.check()
            try:
                self.client().get(ServiceAccount, "default", namespace=namespace)
            except ApiError as error:
                if error.status.code != 404:
                    raise
                return NotYet("no service account 'default' yet")
            return True

        wait_for(f"namespace {namespace} to be usable", check, timeout_seconds=30, interval_seconds=0.05)


def _etcd_flags(data: Path, port: int, peer_port: int) -> list[str]:
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    return [
        f"--data-dir={data}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=warn",
    ]
