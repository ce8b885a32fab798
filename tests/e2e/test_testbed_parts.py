"""Parts of the bed that need no cluster: finding programs, reading quantities, deciding what pods do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from testbed import TestbedError, binaries
from testbed.behaviour import ANNOTATION, Behaviour, behaviour_of, memory_bytes
from testbed.kubeapi import Container, HttpGet, Meta, Pod, PodSpec, Probe, Resources
from testbed.load import Load
from testbed.ports import free_ports, start_on_free_ports
from testbed.sample_service import Manners, SampleService, manners_of

ROOT = Path(__file__).parent.parent.parent


def _pod(container: Container, annotations: dict[str, str] | None = None) -> Pod:
    return Pod(metadata=Meta(annotations=annotations or {}), spec=PodSpec(containers=[container]))


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (Container("app", image="shop/pay:1.0"), Behaviour.READY),
        (Container("app", image="shop/pay:1.0-missing"), Behaviour.MISSING),
        (Container("app", image="shop/crash:1.0"), Behaviour.CRASH),
        (Container("app", image="shop/pay:1.0-errors"), Behaviour.READY),
        (Container("app", image="shop/pay:1.0-leak"), Behaviour.LEAK),
        (Container("app", image="shop/pay:1", command=["/bad", "serve"]), Behaviour.BAD_COMMAND),
        (Container("app", image="shop/pay:1", command=["/app"]), Behaviour.READY),
        (Container("app", image="shop/pay:1", resources=Resources({"memory": "31Mi"})), Behaviour.OOM),
        (Container("app", image="shop/pay:1", resources=Resources({"memory": "32Mi"})), Behaviour.READY),
        (Container("app", image="shop/pay:1", readiness_probe=Probe(HttpGet("/broken"))), Behaviour.UNREADY),
        (Container("app", image="shop/pay:1", readiness_probe=Probe(HttpGet("/ready"))), Behaviour.READY),
    ],
)
def test_behaviour_follows_from_the_pod(container: Container, expected: Behaviour) -> None:
    """Image words, command, memory limit and probe decide."""
    assert behaviour_of(_pod(container)) is expected


def test_annotation_overrules_the_image() -> None:
    """What a test asks for by name comes first; an unknown name is an error, not a healthy pod."""
    container = Container("app", image="shop/pay:crash")
    assert behaviour_of(_pod(container, {ANNOTATION: "pending"})) is Behaviour.PENDING
    with pytest.raises(ValueError, match="explode"):
        behaviour_of(_pod(container, {ANNOTATION: "explode"}))


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [("16Mi", 16 * 1024**2), ("1.5Gi", 1.5 * 1024**3), ("64M", 64e6), ("1000", 1000)],
)
def test_memory_quantities(quantity: str, expected: float) -> None:
    """Binary and decimal units, and plain bytes."""
    assert memory_bytes(quantity) == expected


def test_memory_quantity_that_is_none() -> None:
    """Nonsense is refused instead of read as zero."""
    with pytest.raises(ValueError, match="lots"):
        memory_bytes("lots")


@pytest.mark.parametrize(
    ("image", "settings", "expected"),
    [
        ("shop/pay:1.0", {}, Manners()),
        ("shop/pay:1.0-errors", {}, Manners(fail_ratio=0.5)),
        ("shop/pay:1.0-slow", {}, Manners(latency_seconds=1.5)),
        ("shop/pay:1.0-errors", {"FAIL_RATIO": "0"}, Manners()),
        (
            "shop/pay:1.0",
            {"FAIL_RATIO": "7", "LATENCY_SECONDS": "60"},
            Manners(fail_ratio=1, latency_seconds=2),
        ),
        ("shop/pay:1.0", {"FAIL_RATIO": "a lot"}, Manners(fail_ratio=1)),
        ("shop/pay:1.0", {"DEPENDENCY_URL": "http://a.b/"}, Manners(dependency_url="http://a.b/")),
    ],
)
def test_manners_follow_from_image_and_settings(
    image: str, settings: dict[str, str], expected: Manners
) -> None:
    """Settings overrule the image's words and are bounded; a broken number breaks the service."""
    assert manners_of(image, settings) == expected


class _Nowhere:
    def route(self, host: str, port: int | None) -> tuple[str, int] | None:
        return None


async def test_traffic_goes_round_the_ready_pods() -> None:
    """One bad pod of four fails its quarter exactly, and the metrics say so."""
    async with httpx2.AsyncClient() as outside:
        service = SampleService(_Nowhere(), outside)
        good = {f"good-{number}": Manners() for number in range(3)}
        service.set_pods({**good, "bad": Manners(fail_ratio=1)})
        transport = httpx2.ASGITransport(app=service.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://service") as http:
            codes = [(await http.get("/pay")).status_code for _ in range(40)]
            metrics = (await http.get("/metrics")).text
    assert codes.count(500) == 10
    assert codes.count(200) == 30
    assert 'http_requests_total{code="500"} 10.0' in metrics
    assert "http_request_duration_seconds_count 40.0" in metrics


async def test_unknown_dependency_fails_without_a_name_lookup() -> None:
    """A name that the cluster does not know is an error of the caller."""
    async with httpx2.AsyncClient() as outside:
        service = SampleService(_Nowhere(), outside)
        service.set_pods({"pod": Manners(dependency_url="http://legder.shop.svc/")})
        transport = httpx2.ASGITransport(app=service.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://service") as http:
            answer = await http.get("/")
    assert (answer.status_code, "no such host" in answer.text) == (500, True)


async def test_load_ends_by_itself_and_counts_what_fails(tmp_path: Path) -> None:
    """A generator whose service refuses connections counts them and stops when its time is over."""
    (port,) = free_ports(1)
    targets = tmp_path / "targets.json"
    entry = f'{{"targets": ["127.0.0.1:{port}"], "labels": {{"namespace": "%s", "service": "pay"}}}}'
    targets.write_text(f"[{entry % 'shop'}, {entry % 'other'}]")
    async with httpx2.AsyncClient() as http:
        load = Load(targets, "shop", 50, http)
        await load.run(0.5)
    assert set(load.answers) == {"ConnectError"}
    assert 1 <= load.answers["ConnectError"] <= 30


def test_no_port_is_given_twice() -> None:
    """Neither to this process nor to another, so that a killed program can start again on its port."""
    mine = set(free_ports(60))
    code = "from testbed.ports import free_ports; print(*free_ports(60))"
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    theirs = {int(port) for port in other.stdout.split()}
    assert (len(mine), len(theirs)) == (60, 60)
    assert mine.isdisjoint(theirs)


def test_ports_taken_in_between_are_given_up() -> None:
    """A port race is tried again with other ports; any other failure is raised at once."""
    tried: list[tuple[int, ...]] = []

    def start(ports: tuple[int, ...]) -> None:
        tried.append(ports)
        if len(tried) == 1:
            raise TestbedError("bind: address already in use")

    abandoned: list[bool] = []
    start_on_free_ports(2, start, lambda: abandoned.append(True))
    assert (len(tried), len(abandoned)) == (2, 1)

    def fail(_: tuple[int, ...]) -> None:
        raise TestbedError("no such flag")

    with pytest.raises(TestbedError, match="no such flag"):
        start_on_free_ports(1, fail, lambda: abandoned.append(True))
    assert len(abandoned) == 1


def test_versions_are_those_of_the_go_module() -> None:
    """The cache folder's name comes from go.mod, so that a new pin is a new folder."""
    found = binaries.pinned_versions()
    text = (ROOT / "testbed" / "binaries" / "go.mod").read_text()
    assert f"k8s.io/kubernetes {found.kubernetes}\n" in text
    assert binaries.cache_folder().name == f"k8s-{found.kubernetes}-etcd-{found.etcd}"


def test_named_folder_must_hold_every_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBEBUILDER_ASSETS that lacks a program is an error that names it, not a silent build."""
    (tmp_path / "etcd").touch(mode=0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(TestbedError, match=r"lacks kube-apiserver, kube-controller-manager, kube-scheduler"):
        binaries.ensure_binaries()


def test_without_go_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No programs, no Go: the error names both ways out, and no half-built file stays."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("HEAL_TESTBED_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binaries, "GO_FOLDER", str(tmp_path))
    with pytest.raises(TestbedError, match=r"install Go .* KUBEBUILDER_ASSETS"):
        binaries.ensure_binaries()
    assert [path.name for path in binaries.cache_folder().iterdir()] == [".lock"]


def test_failed_build_leaves_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiler says is in the error, and the next attempt starts afresh."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(
        '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho half > "$2"\necho no space left\nexit 2\n'
    )
    go.chmod(0o755)
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("HEAL_TESTBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{go.parent}:{os.environ['PATH']}")
    with pytest.raises(TestbedError, match="no space left"):
        binaries.ensure_binaries(lambda _: None)
    assert [path.name for path in binaries.cache_folder().iterdir()] == [".lock"]


def test_real_tier_fails_when_the_bed_cannot_be_made(tmp_path: Path) -> None:
    """A missing program fails the real tier with its reason; only HEAL_REAL=skip skips it."""
    environment = {**os.environ, "KUBEBUILDER_ASSETS": str(tmp_path)}
    environment.pop("HEAL_REAL", None)
    target = "tests/e2e/test_testbed.py::test_rollout_completes_in_seconds"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", target]
    failed = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert f"the real tier cannot run: KUBEBUILDER_ASSETS={tmp_path} lacks etcd" in failed.stdout
    environment["HEAL_REAL"] = "skip"
    skipped = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (skipped.returncode, "1 skipped" in skipped.stdout) == (0, True)
