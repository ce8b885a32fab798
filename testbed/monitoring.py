"""Debian's Prometheus and Alertmanager on free ports, scraping the sample fleet every second.

Started by `testbed.world`. The alert rules fire within a few seconds of a fault,
and alerts go to whatever webhook was named last.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2
import yaml

from testbed import TestbedError
from testbed.debian import ensure_packages
from testbed.ports import start_on_free_ports
from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for

_READY_SECONDS = 30.0
_BY = "sum by (namespace, service)"
ERROR_RATE = (
    _BY + ' (rate(http_requests_total{code=~"5.."}[10s])) / ' + _BY + " (rate(http_requests_total[10s]))"
)
"""Share of failed requests of each service over ten seconds."""
P95_MILLISECONDS = (
    "1000 * histogram_quantile(0.95, sum by (namespace, service, le)"
    " (rate(http_request_duration_seconds_bucket[10s])))"
)
"""95th percentile of the latency of each service over ten seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One element of an instant vector."""

    labels: dict[str, str]
    value: float


class Monitoring:
    """Both programs, reading `targets` (Prometheus's file_sd format) for what to scrape."""

    def __init__(self, *, folder: Path, targets: Path, supervisor: Supervisor) -> None:
        self._folder = folder
        self._targets = targets
        self._supervisor = supervisor
        self._processes: list[Process] = []
        self._http = httpx2.Client(timeout=10)
        self.prometheus_url = ""
        self.alertmanager_url = ""

    def start(self) -> None:
        """Return when both answer; raises `TestbedError` naming the package that is missing."""
        ensure_packages()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write_alertmanager_config(None, None)
        try:
            start_on_free_ports(2, self._start, self._stop_processes)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Safe to repeat."""
        self._http.close()
        self._stop_processes()

    def check(self) -> None:
        """Raise `TestbedError`, with the end of its log, when one has died."""
        for process in self._processes:
            process.check()

    def route_alerts_to(self, url: str | None, token: str | None = None) -> None:
        """From now on alerts, and their ends, are posted there with the bearer token; None: nowhere."""
        self._write_alertmanager_config(url, token)
        answer = self._http.post(f"{self.alertmanager_url}/-/reload")
        if answer.status_code != 200:
            raise TestbedError(f"Alertmanager refused its configuration: {answer.text}")

    def query(self, promql: str) -> tuple[Sample, ...]:
        """An instant query; no data is an empty answer."""
        answer = self._http.get(f"{self.prometheus_url}/api/v1/query", params={"query": promql})
        body = answer.json()
        if body["status"] != "success":
            raise TestbedError(f"Prometheus refused {promql}: {body['error']}")
        result = body["data"]["result"]
        if body["data"]["resultType"] == "scalar":
            return (Sample(labels={}, value=float(result[1])),)
        return tuple(Sample(labels=one["metric"], value=float(one["value"][1])) for one in result)

    def wait_value(
        self, promql: str, condition: Callable[[float], bool], *, what: str, timeout_seconds: float = 30
    ) -> float:
        """Until the query's only element satisfies `condition`; `what` says it in words."""

        def check() -> float | NotYet:
            found = self.query(promql)
            if len(found) == 1 and condition(found[0].value):
                return found[0].value
            return NotYet(", ".join(f"{one.value:g}" for one in found) or "no data")

        return wait_for(f"{what} ({promql})", check, timeout_seconds=timeout_seconds, interval_seconds=0.25)

    def error_rate(self, namespace: str, service: str) -> str:
        """The query for one service's error rate."""
        labels = f'namespace="{namespace}",service="{service}"'
        return ERROR_RATE.replace("{code", "{" + labels + ",code").replace("total[", "total{" + labels + "}[")

    def p95_milliseconds(self, namespace: str, service: str) -> str:
        """The query for one service's 95th percentile."""
        return P95_MILLISECONDS.replace("bucket[", f'bucket{{namespace="{namespace}",service="{service}"}}[')

    # -------------------------------------------------------------- starting

    def _start(self, ports: tuple[int, ...]) -> None:
        prometheus, alertmanager = ports
        self.prometheus_url = f"http://127.0.0.1:{prometheus}"
        self.alertmanager_url = f"http://127.0.0.1:{alertmanager}"
        self._write_prometheus_config(alertmanager)
        self._run(
            "prometheus-alertmanager",
            f"--config.file={self._folder / 'alertmanager.yml'}",
            f"--storage.path={self._folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{alertmanager}",
            "--cluster.listen-address=",
        )
        self._run(
            "prometheus",
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{prometheus}",
            "--web.enable-lifecycle",
        )
        for url in (self.alertmanager_url, self.prometheus_url):
            wait_for(f"{url}/-/ready", partial(self._ready, url), timeout_seconds=_READY_SECONDS)

    def _stop_processes(self) -> None:
        with contextlib.suppress(TestbedError):  # the supervisor being gone, nothing runs any more
            while self._processes:
                self._processes.pop().stop()

    def _run(self, program: str, *flags: str) -> None:
        log = self._folder / f"{program}.log"
        log.unlink(missing_ok=True)
        self._processes.append(
            self._supervisor.start(program, [program, "--log.level=warn", *flags], log=log)
        )

    def _ready(self, url: str) -> bool | NotYet:
        self.check()
        try:
            answer = self._http.get(f"{url}/-/ready")
        except httpx2.HTTPError as error:
            return NotYet(f"{type(error).__name__}: {error}")
        return True if answer.status_code == 200 else NotYet(f"{answer.status_code} {answer.text}")

    # -------------------------------------------------------------- configuration

    def _write_prometheus_config(self, alertmanager_port: int) -> None:
        self._write("rules.yml", {"groups": [{"name": "services", "interval": "1s", "rules": _rules()}]})
        watched = [{"files": [str(self._targets)], "refresh_interval": "1s"}]
        alertmanagers = [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]}]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(self._folder / "rules.yml")],
            "alerting": {"alertmanagers": alertmanagers},
            "scrape_configs": [{"job_name": "services", "file_sd_configs": watched}],
        }
        self._write("prometheus.yml", config)

    def _write_alertmanager_config(self, url: str | None, token: str | None) -> None:
        receiver: dict[str, object] = {"name": "agent"}
        if url is not None:
            webhook: dict[str, object] = {"url": url, "send_resolved": True}
            if token is not None:
                webhook["http_config"] = {"authorization": {"type": "Bearer", "credentials": token}}
            receiver["webhook_configs"] = [webhook]
        route = {
            "receiver": "agent",
            "group_by": ["alertname", "namespace", "service"],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        }
        self._write("alertmanager.yml", {"route": route, "receivers": [receiver]})

    def _write(self, name: str, content: object) -> None:
        """Readable by its owner alone: it may hold the webhook's token."""
        path = self._folder / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            yaml.safe_dump(content, file)


def _rules() -> list[dict[str, object]]:
    summary = "{{ $labels.service }} in {{ $labels.namespace }}: "
    return [
        {
            "alert": "HighErrorRate",
            "expr": f"{ERROR_RATE} > 0.05",
            "for": "2s",
            "labels": {"severity": "page"},
            "annotations": {"summary": summary + "{{ $value | humanizePercentage }} of requests fail"},
        },
        {
            "alert": "HighLatency",
            "expr": f"{P95_MILLISECONDS} > 1000",
            "for": "2s",
            "labels": {"severity": "page"},
            "annotations": {"summary": summary + "p95 latency is {{ $value | humanize }} ms"},
        },
    ]
