"""The bed's services and monitoring keep their word: what is served follows the cluster, and is measured."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest

from testbed.monitoring import ERROR_RATE
from testbed.waiting import NotYet, wait_for
from testbed.workloads import config_map_name
from testbed.world import TestBed

pytestmark = pytest.mark.real


@pytest.fixture
def loaded(monitored_world: TestBed, namespace: str) -> Iterator[str]:
    """A fresh namespace whose services get requests."""
    load = monitored_world.start_load(namespace, rps=20, seconds=110)
    yield namespace
    load.stop()


def _codes(url: str, count: int) -> list[int]:
    with httpx2.Client() as http:
        return [http.get(url).status_code for _ in range(count)]


def test_error_rate_follows_the_image(monitored_world: TestBed, loaded: str) -> None:
    """Prometheus sees none, then about half, then no errors, as releases come and go."""
    bed, rate = monitored_world, monitored_world.monitoring.error_rate(loaded, "pay")
    bed.deploy(loaded, "pay", "shop/pay:1.0")
    bed.wait_rolled_out(loaded, "pay")
    bed.monitoring.wait_value(rate, lambda value: value == 0, what="no errors")
    bed.set_image(loaded, "pay", "shop/pay:1.1-errors")
    bed.monitoring.wait_value(rate, lambda value: 0.4 < value < 0.6, what="half of all failing")
    bed.set_image(loaded, "pay", "shop/pay:1.0")
    bed.monitoring.wait_value(rate, lambda value: value == 0, what="no errors again")


def test_latency_follows_the_image(monitored_world: TestBed, loaded: str) -> None:
    """A slow release shows in the 95th percentile, and its errors stay none."""
    bed, p95 = monitored_world, monitored_world.monitoring.p95_milliseconds(loaded, "pay")
    bed.deploy(loaded, "pay", "shop/pay:1.0")
    bed.monitoring.wait_value(p95, lambda value: value < 250, what="quick answers")
    bed.set_image(loaded, "pay", "shop/pay:1.1-slow")
    bed.monitoring.wait_value(p95, lambda value: value > 1000, what="slow answers")
    rate = bed.monitoring.error_rate(loaded, "pay")
    assert bed.monitoring.wait_value(rate, lambda value: value >= 0, what="an error rate") < 0.05


def test_traffic_is_spread_by_ready_pods(monitored_world: TestBed, namespace: str) -> None:
    """A stalled release that crashes takes no traffic: the old pods answer all of it."""
    bed = monitored_world
    bed.deploy(namespace, "pay", "shop/pay:1.0")
    bed.wait_rolled_out(namespace, "pay")
    bed.set_image(namespace, "pay", "shop/pay:1.1-errors-crash")
    bed.wait_waiting(namespace, "pay", "CrashLoopBackOff")
    assert _codes(bed.service_url(namespace, "pay"), 20) == [200] * 20


def test_without_ready_pods_every_answer_is_503(monitored_world: TestBed, loaded: str) -> None:
    """A service without serving pods counts as failing, not as silent."""
    bed = monitored_world
    bed.deploy(loaded, "pay", "shop/pay:missing")
    bed.wait_waiting(loaded, "pay", "ImagePullBackOff")
    rate = bed.monitoring.error_rate(loaded, "pay")
    bed.monitoring.wait_value(rate, lambda value: value == 1, what="all failing")


def test_wrong_dependency_address_fails_requests(monitored_world: TestBed, namespace: str) -> None:
    """A service that calls a wrong port or name errs, and the one it should call stays healthy."""
    bed = monitored_world
    good = f"http://ledger.{namespace}.svc/"
    bed.deploy(namespace, "ledger", "shop/ledger:1.0")
    bed.deploy(namespace, "pay", "shop/pay:1.0", env={"DEPENDENCY_URL": good})
    bed.wait_rolled_out(namespace, "ledger")
    bed.wait_rolled_out(namespace, "pay")
    pay, ledger = bed.service_url(namespace, "pay"), bed.service_url(namespace, "ledger")
    assert _codes(pay, 6) == [200] * 6
    for wrong in (f"http://ledger.{namespace}.svc:9999/", f"http://legder.{namespace}.svc/"):
        bed.set_env(namespace, "pay", {"DEPENDENCY_URL": wrong})
        bed.wait_rolled_out(namespace, "pay")
        _wait_codes(pay, [500] * 6)
        assert _codes(ledger, 6) == [200] * 6
    bed.set_env(namespace, "pay", {"DEPENDENCY_URL": good})
    bed.wait_rolled_out(namespace, "pay")
    _wait_codes(pay, [200] * 6)


def _wait_codes(url: str, wanted: list[int]) -> None:
    """The fleet follows the control plane within moments."""

    def check() -> bool | NotYet:
        seen = _codes(url, len(wanted))
        return True if sorted(seen) == sorted(wanted) else NotYet(str(seen))

    wait_for(f"answers {wanted} from {url}", check, timeout_seconds=10)


def test_environment_is_read_at_start_and_volumes_are_live(monitored_world: TestBed, namespace: str) -> None:
    """A changed ConfigMap reaches pods that mount it at once, and those with envFrom after a restart."""
    bed = monitored_world
    bed.deploy(namespace, "env", "shop/env:1.0", config_map={"FAIL_RATIO": "0"})
    bed.deploy(namespace, "vol", "shop/vol:1.0", config_map={"FAIL_RATIO": "0"}, mount_config_map=True)
    for name in ("env", "vol"):
        bed.wait_rolled_out(namespace, name)
        bed.update_config_map(namespace, config_map_name(name), {"FAIL_RATIO": "1"})
    _wait_codes(bed.service_url(namespace, "vol"), [500] * 6)
    assert _codes(bed.service_url(namespace, "env"), 6) == [200] * 6
    bed.restart(namespace, "env")
    bed.wait_rolled_out(namespace, "env")
    _wait_codes(bed.service_url(namespace, "env"), [500] * 6)


Delivery = tuple[str | None, dict[str, Any]]


@pytest.fixture
def webhook() -> Iterator[tuple[str, queue.SimpleQueue[Delivery]]]:
    """A listener's URL, and what was posted there: Authorization header and body."""
    received: queue.SimpleQueue[Delivery] = queue.SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.put((self.headers["Authorization"], json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_alert_reaches_the_webhook_with_its_token_and_is_resolved(
    monitored_world: TestBed, loaded: str, webhook: tuple[str, queue.SimpleQueue[Delivery]]
) -> None:
    """A failing service fires HighErrorRate at the webhook; the end of the fault resolves it."""
    bed, (url, received) = monitored_world, webhook
    bed.monitoring.route_alerts_to(url, "a-token")
    try:
        bed.deploy(loaded, "pay", "shop/pay:1.0-errors")
        _next_alert(received, loaded, "firing")
        bed.set_image(loaded, "pay", "shop/pay:1.1")
        _next_alert(received, loaded, "resolved")
    finally:
        bed.monitoring.route_alerts_to(None)


def _next_alert(received: queue.SimpleQueue[Delivery], namespace: str, status: str) -> None:
    """Take deliveries until the wanted one comes; each of ours carries the token."""
    while True:
        authorization, body = received.get(timeout=300)
        assert authorization == "Bearer a-token"
        for alert in body["alerts"]:
            labels = alert["labels"]
            if labels["namespace"] == namespace and alert["status"] == status:
                assert (labels["alertname"], labels["service"]) == ("HighErrorRate", "pay")
                return


def test_the_agents_default_queries_find_the_series(monitored_world: TestBed, loaded: str) -> None:
    """Labels `namespace`, `service` and `code` are as the agent's default templates expect them."""
    bed = monitored_world
    bed.deploy(loaded, "pay", "shop/pay:1.0-errors")
    labels = f'{{namespace="{loaded}",service="pay"'
    for query in (
        f'sum(rate(http_requests_total{labels},code=~"5.."}}[10s]))',
        f"histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket{labels}}}[10s])))",
    ):
        bed.monitoring.wait_value(query, lambda value: value > 0, what="data")
    services = {(one.labels["namespace"], one.labels["service"]) for one in bed.monitoring.query(ERROR_RATE)}
    assert (loaded, "pay") in services
