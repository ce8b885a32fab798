"""Silences read from a real Alertmanager: set, narrowed, expired, and the program gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from app.agent.ids import ServiceKey
from app.config import Settings
from app.connectors.alerts.silences import AlertmanagerSilences
from app.connectors.registry import ALERT_FORMATS
from app.errors import TransientError
from tests.contract.metric_worlds import free_port, serving

PROGRAM = "prometheus-alertmanager"
SHOP = ServiceKey(environment="prod", service="shop")
CART = ServiceKey(environment="prod", service="cart")

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="Alertmanager is not installed"),
]


@contextmanager
def alertmanager(folder: Path) -> Iterator[str]:
    """Run Alertmanager; yields its address once it is ready."""
    (folder / "config.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    address = f"127.0.0.1:{free_port()}"
    command = [
        PROGRAM,
        f"--config.file={folder / 'config.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    with serving("Alertmanager", command, address, folder / "log") as url:
        yield url


def silence(url: str, *matchers: dict[str, object]) -> str:
    """Set a silence for an hour; its id."""
    now = datetime.now(UTC)
    body = {
        "matchers": list(matchers),
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "ann",
        "comment": "migration",
    }
    answer = httpx2.post(f"{url}/api/v2/silences", json=body, trust_env=False)
    answer.raise_for_status()
    found: str = answer.json()["silenceID"]
    return found


def expire(url: str, silence_id: str) -> None:
    httpx2.delete(f"{url}/api/v2/silence/{silence_id}", trust_env=False).raise_for_status()


def of(name: str, value: str, *, is_regex: bool = False, is_equal: bool = True) -> dict[str, object]:
    return {"name": name, "value": value, "isRegex": is_regex, "isEqual": is_equal}


async def test_silences_are_read_as_alertmanager_keeps_them(tmp_path: Path) -> None:
    """Whom they concern, who set them until when and why; an expired one is gone, and so is the source."""
    with alertmanager(tmp_path) as url:
        source = AlertmanagerSilences.from_settings(
            Settings.model_validate({"alertmanager_url": url, "alertmanager_timeout_seconds": 60})
        )

        async def concerning(key: ServiceKey) -> list[tuple[str, bool]]:
            found = await source.concerning(key, datetime.now(UTC))
            return sorted((one.silence.id, one.whole) for one in found if not one.labels_only)

        assert await concerning(SHOP) == []
        whole = silence(url, of("service", "shop|basket", is_regex=True), of("namespace", "prod"))
        alert = silence(url, of("alertname", "HighLatency"), of("service", "cart", is_equal=False))
        assert await concerning(SHOP) == sorted([(whole, True), (alert, False)])
        assert await concerning(CART) == []
        (read,) = [one for one in await source.concerning(SHOP, datetime.now(UTC)) if one.silence.id == whole]
        assert read.words.startswith("silenced by ann until ")
        assert read.words.endswith(" UTC (migration)")
        expire(url, whole)
        assert await concerning(SHOP) == [(alert, False)]
    with pytest.raises(TransientError):
        await concerning(SHOP)
    await source.aclose()


async def test_firing_alerts_are_read_as_alertmanager_would_deliver_them(tmp_path: Path) -> None:
    """The same signal as its delivery would be; a silenced one, and another receiver's, are not listed."""
    with alertmanager(tmp_path) as url:
        given = {"alertmanager_url": url, "alertmanager_timeout_seconds": 60}
        settings = Settings.model_validate({**given, "alertmanager_receiver": "none"})
        source = AlertmanagerSilences.from_settings(settings)
        now = datetime.now(UTC)
        labels = [
            {"alertname": "HighErrorRate", "namespace": "prod", "service": service}
            for service in ("shop", "cart")
        ]
        silence(url, of("service", "cart"))
        posted = [{"labels": one, "startsAt": (now - timedelta(minutes=5)).isoformat()} for one in labels]
        httpx2.post(f"{url}/api/v2/alerts", json=posted, trust_env=False).raise_for_status()
        listed = httpx2.get(f"{url}/api/v2/alerts", trust_env=False).json()
        (shop,) = [one for one in listed if one["labels"]["service"] == "shop"]
        batch = (await source.firing(())).batch(settings=settings, received_at=now)
        (signal,) = batch.signals
        assert signal.key == SHOP
        webhook = {"version": "4", "status": "firing", "alerts": [{**shop, "status": "firing"}]}
        delivered = ALERT_FORMATS[0].read(webhook).batch(settings=settings, received_at=now)
        assert [one.dedup_key for one in delivered.signals] == [signal.dedup_key]
        another = AlertmanagerSilences.from_settings(
            Settings.model_validate({**given, "alertmanager_receiver": "another"})
        )
        assert (await another.firing(())).entries == ()
        every = {one["fingerprint"] for one in listed}
        assert len(every) == 2
        assert await source.listed("HighErrorRate") == await another.listed("") == every, "silenced too"
        assert await source.listed('High"ErrorRate') == frozenset()
        over = {**posted[0], "endsAt": (now - timedelta(seconds=1)).isoformat()}
        httpx2.post(f"{url}/api/v2/alerts", json=[over], trust_env=False).raise_for_status()
        assert await source.listed("HighErrorRate") == every - {shop["fingerprint"]}
        await source.aclose()
        await another.aclose()
