"""`heal doctor` finds what is wrong, says how to fix it, and asks for exactly the rights that are needed."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from app.agent.models import ActionName
from app.cli import main
from app.cli.commands import demo_live
from app.cli.commands.doctor import examine
from app.cli.commands.errors import CommandFailed
from app.clock import SystemClock
from app.config import Settings
from app.connectors.findings import Finding, Status, ok
from app.connectors.kubernetes.access import (
    Access,
    clock_and_rights,
    needed_rights,
    supplementary_rights,
)
from app.errors import PermanentError, TransientError
from tests.contract.slack_standin import BOT_TOKEN, CHANNEL, slack_standin
from tests.unit.loopback import Behaviour, Request, loopback, raw, reply

RUNBOOKS = Path("runbooks").resolve()


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def created() -> list[Path]:
    return list(Path().iterdir())


def settings_with(**values: object) -> Settings:
    return Settings.model_validate({"runbooks_dir": RUNBOOKS, **values})


async def findings(settings: Settings) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    async for finding in examine(settings):
        found.setdefault(finding.check, []).append(finding)
    return found


def kubeconfig(folder: Path, url: str) -> Path:
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "here", "user": "agent", "namespace": "default"}}
        ],
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "agent", "user": {"token": "t0ken"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


class ApiServer:
    """Answers as an API server would to one who has all rights but `denied`."""

    def __init__(
        self,
        *,
        denied: frozenset[str] = frozenset(),
        ahead: timedelta = timedelta(),
        resources: tuple[str, ...] = ("deployments",),
    ) -> None:
        """`resources` are those that have a workload called shop."""
        self.denied = denied
        self.resources = resources
        self.ahead = ahead
        self.asked: list[Access] = []

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path.endswith("/selfsubjectaccessreviews"):
            await reply(201, self._reviewed(json.loads(request.body)))(request, writer)
        else:
            await reply(200, self._workloads(request.path.rpartition("/")[2]))(request, writer)

    def _reviewed(self, review: dict[str, object]) -> dict[str, object]:
        spec = review["spec"]
        assert isinstance(spec, dict)
        wanted = spec["resourceAttributes"]
        access = Access(
            verb=wanted["verb"],
            group=wanted["group"],
            resource=wanted["resource"],
            namespace=wanted.get("namespace") or "",
        )
        self.asked.append(access)
        stamp = (datetime.now(UTC) + self.ahead).strftime("%Y-%m-%dT%H:%M:%SZ")
        allowed = f"{access.verb} {access.resource}" not in self.denied
        managed = [{"manager": "heal", "operation": "Update", "time": stamp}]
        return {**review, "metadata": {"managedFields": managed}, "status": {"allowed": allowed}}

    def _workloads(self, resource: str) -> dict[str, object]:
        shop = {"metadata": {"name": "shop", "namespace": "prod", "uid": "u-1"}, "spec": {}}
        items = [shop] if resource.partition("?")[0] in self.resources else []
        return {"apiVersion": "apps/v1", "metadata": {"resourceVersion": "7"}, "items": items}


# ------------------------------------------------------------------ names that match nothing


async def test_a_services_file_is_validated(tmp_path: Path) -> None:
    """The error with file and line, and what it means for a running agent."""
    file = tmp_path / "services.yaml"
    file.write_text("schema: 1\nservices: {prod/shop: {autonomy: ask}}\n")
    (finding,) = (await findings(settings_with(services_file=file)))["services file"]
    assert finding.status is Status.OK
    file.write_text("schema: 1\nservices: {prod/shop: {autonomy: maybe}}\n")
    (finding,) = (await findings(settings_with(services_file=file)))["services file"]
    assert finding.status is Status.FAIL
    assert "services.yaml:2:" in finding.message
    assert "keeps the last valid content" in finding.fix


async def test_mappings_that_map_to_nothing_are_found(tmp_path: Path) -> None:
    """Each entry of a setting that the cluster has nothing for is named with its setting."""
    async with loopback(ApiServer()) as server:
        found = await findings(
            settings_with(
                kubeconfig=kubeconfig(tmp_path, server.url),
                environment_namespaces={"live": "prod", "test": "staging"},
                service_workloads={"live/ledger": "legacy/ledgr", "live/shop": "prod/shop"},
                service_dependencies={"live/shop": ["live/shop", "search"]},
                freeze_windows=[
                    {"name": "sale", "hours": 1, "cron": "0 1 * * *", "services": ["shop", "live/shop"]},
                    {"name": "night", "hours": 1, "cron": "0 1 * * *", "environments": ["production"]},
                ],
            )
        )
    messages = [finding.message for finding in found["mappings"]]
    assert all(finding.status is Status.WARN for finding in found["mappings"])
    for setting, named, absent in (
        ("SERVICE_WORKLOADS", "live/ledger -> legacy/ledgr", "live/shop"),
        ("ENVIRONMENT_NAMESPACES", "test -> staging", "live ->"),
        ("SERVICE_DEPENDENCIES", "live/search", "live/shop"),
        ("FREEZE_WINDOWS: sale", "service live/shop", "service shop"),
        ("FREEZE_WINDOWS: night", "environment production", "service"),
    ):
        (message,) = [each for each in messages if each.startswith(setting)]
        assert named in message
        assert absent not in message


async def test_mappings_that_match_are_not_mentioned(tmp_path: Path) -> None:
    """No finding where everything named is there."""
    async with loopback(ApiServer()) as server:
        found = await findings(
            settings_with(
                kubeconfig=kubeconfig(tmp_path, server.url), service_workloads={"live/shop": "prod/shop"}
            )
        )
    assert "mappings" not in found


def test_unknown_names_in_the_env_file_are_a_warning() -> None:
    """They have no effect; those listed as another program's are not mentioned."""
    Path(".env").write_text("TEAM_COLOUR=blue\nCOMPOSE_PROJECT=x\nUNRELATED_NAMES=COMPOSE_PROJECT\n")
    found = asyncio.run(findings(settings_with()))
    (finding,) = found["configuration"]
    assert finding.status is Status.WARN
    assert "TEAM_COLOUR" in finding.message
    assert "COMPOSE_PROJECT" not in finding.message


# ------------------------------------------------------------------ without anything around


async def test_a_fresh_folder_is_ready_to_start_with_warnings() -> None:
    """Nothing fails; what is not connected is named with the setting that connects it."""
    found = await findings(settings_with())
    assert not [f for several in found.values() for f in several if f.status is Status.FAIL]
    assert "does not exist yet" in found["store"][0].message
    assert found["policy"][0].status is Status.OK
    assert created() == []
    for check, setting in (
        ("cluster", "KUBECONFIG"),
        ("metrics", "PROMETHEUS_URL"),
        ("alertmanager", "ALERTMANAGER_TOKEN"),
        ("identity", "REQUIRE_IDENTITY"),
        ("people", "NOTIFY_WEBHOOK_URL"),
    ):
        assert found[check][0].status is Status.WARN
        assert setting in found[check][0].fix


async def test_runbooks_that_are_missing_have_the_fix_for_it(tmp_path: Path) -> None:
    """A folder without runbooks is a matter of RUNBOOKS_DIR; an invalid runbook one of its file."""
    (found,) = (await findings(settings_with(runbooks_dir=tmp_path / "nowhere")))["runbooks"]
    assert found.fix == (
        "set RUNBOOKS_DIR to a folder of runbooks, or remove it to use the runbooks of the agent"
    )
    (tmp_path / "wrong.yaml").write_text("id: [")
    (found,) = (await findings(settings_with(runbooks_dir=tmp_path)))["runbooks"]
    assert found.fix.startswith("correct the file")
    assert "wrong.yaml" in found.message


async def test_who_may_approve_is_reported() -> None:
    """With identity by role, and Alertmanager may use a token of the agent's own."""
    found = await findings(settings_with(require_identity=True, host="0.0.0.0"))  # noqa: S104 - only compared
    assert found["identity"][0].status is Status.OK
    assert "may approve as responder, admin" in found["identity"][0].message
    assert found["alertmanager"][0].status is Status.OK
    found = await findings(settings_with(require_identity=True, role_scopes={"*": ("read",)}))
    assert "only tokens may approve" in found["identity"][0].message


async def test_real_mode_is_said_aloud() -> None:
    """Doctor says that actions are carried out."""
    found = await findings(settings_with(dry_run=False, enabled_actions="restart"))
    assert "LIVE" in found["mode"][0].message
    assert "restart" in found["mode"][0].message
    assert any("ENABLED_ACTIONS" in finding.fix for finding in found["runbooks"])


@pytest.mark.parametrize("watched", [True, False])
async def test_an_action_on_jobs_that_are_not_watched_is_never_planned(watched: bool) -> None:
    """The setting that is missing is named."""
    given = settings_with(enabled_actions="restart,rerun_job", watch_jobs=watched)
    told = [one for one in (await findings(given))["runbooks"] if "never planned" in one.message]
    assert [one.fix for one in told] == (
        [] if watched else ["set WATCH_JOBS=true, or remove it from ENABLED_ACTIONS"]
    )


@pytest.mark.parametrize("receiver", ["heal", ""])
async def test_silences_whose_alerts_are_not_polled_are_never_planned(receiver: str) -> None:
    """The settings that are missing are named."""
    given = settings_with(
        enabled_actions="restart,silence_alerts",
        alertmanager_url="http://127.0.0.1:9",
        alertmanager_receiver=receiver,
    )
    told = [one for one in (await findings(given))["runbooks"] if "never planned" in one.message]
    fix = "set ALERTMANAGER_URL and ALERTMANAGER_RECEIVER, or remove it from ENABLED_ACTIONS"
    assert [one.fix for one in told] == ([] if receiver else [fix])


async def test_tokens_are_never_shown() -> None:
    """Set is all that is said of a secret."""
    secret = SecretStr("s3cr3t")
    found = await findings(
        settings_with(alertmanager_token=secret, notify_webhook_url=SecretStr("http://hook/s3cr3t"))
    )
    assert found["alertmanager"][0].status is Status.OK
    assert found["people"][0].status is Status.OK
    assert "s3cr3t" not in repr(found)


@pytest.mark.parametrize(
    ("values", "check"),
    [
        ({"database_url": "sqlite:///missing/folder/heal.db"}, "store"),
        ({"database_url": "mysql://nobody@localhost/heal"}, "store"),
        ({"runbooks_dir": "nowhere"}, "runbooks"),
        ({"kubeconfig": "nowhere"}, "cluster"),
        ({"policy_dir": "nowhere"}, "policy"),
        ({"opa_url": "http://127.0.0.1:9"}, "policy"),
        ({"host": "0.0.0.0"}, "identity"),  # noqa: S104 - only compared
        ({"prometheus_url": "nonsense"}, "prometheus"),
        ({"prometheus_url": "http://127.0.0.1:9"}, "prometheus"),
        ({"alertmanager_url": "nonsense"}, "silences"),
        ({"loki_url": "nonsense"}, "loki"),
        ({"loki_url": "http://127.0.0.1:9"}, "loki"),
        ({"alertmanager_url": "http://127.0.0.1:9"}, "silences"),
        ({"prometheus_url": "http://127.0.0.1:9", "prometheus_p95_query": "sum({{nonsense}})"}, "prometheus"),
    ],
)
async def test_what_cannot_work_fails_with_its_fix(values: dict[str, object], check: str) -> None:
    """A wrong setting fails its own check, and the others go on."""
    found = await findings(settings_with(**values))
    assert found[check][0].status is Status.FAIL
    assert found[check][0].fix
    assert "alertmanager" in found


# ------------------------------------------------------------------ cluster and rights


def test_the_rights_follow_the_enabled_actions() -> None:
    """Reading is always needed; writing only for actions that write, dry run or not."""

    def patches(**values: object) -> list[str]:
        return [a.resource for a in needed_rights(settings_with(**values)) if a.verb == "patch"]

    workloads = ["deployments", "statefulsets", "daemonsets"]
    assert patches() == [*workloads, "configmaps"]
    assert patches(dry_run=True, enabled_actions="restart,rollback") == workloads
    assert patches(enabled_actions="notify") == []
    reading = {f"{a.verb} {a.resource}" for a in needed_rights(settings_with(enabled_actions="notify"))}
    assert {"list deployments", "watch deployments", "list pods", "get configmaps", "list events"} <= reading


def test_rights_are_asked_for_in_every_watched_namespace() -> None:
    """With environments mapped nothing is asked for cluster-wide."""
    everywhere = {a.namespace for a in needed_rights(settings_with())}
    assert everywhere == {""}
    some = settings_with(
        environment_namespaces={"prod": "payments"}, service_workloads={"prod/ledger": "legacy/ledger"}
    )
    assert {a.namespace for a in needed_rights(some)} == {"payments", "legacy"}


async def test_a_workload_that_is_no_service_is_named(tmp_path: Path) -> None:
    """A StatefulSet beside a Deployment of its name, and without rights every one of its kind."""
    denied = frozenset({"list daemonsets", "patch statefulsets"})
    api_server = ApiServer(denied=denied, resources=("deployments", "statefulsets"))
    async with loopback(api_server) as server:
        found = await findings(settings_with(kubeconfig=kubeconfig(tmp_path, server.url)))
    [finding] = found["workloads"]
    assert finding.status is Status.WARN
    assert "StatefulSet prod/shop (Deployment prod/shop is shop in prod too" in finding.message
    [finding] = found["other workloads"]
    assert finding.status is Status.WARN
    assert all(right in finding.message for right in denied)
    assert "rights" not in found


async def test_missing_rights_are_named_one_by_one(tmp_path: Path) -> None:
    """The API server itself is asked for each right; exactly those it refuses are reported."""
    server = ApiServer(denied=frozenset({"patch configmaps", "watch pods"}))
    async with loopback(server) as served:
        settings = settings_with(kubeconfig=kubeconfig(tmp_path, served.url))
        found = await findings(settings)
    assert found["cluster"][0].status is Status.OK
    (rights,) = found["rights"]
    assert rights.status is Status.FAIL
    assert rights.message.removeprefix("forbidden: ").split(", ") == [
        "watch pods in all namespaces",
        "patch configmaps in all namespaces",
    ]
    assert server.asked == [*needed_rights(settings), *supplementary_rights()]


async def test_a_kind_that_may_be_listed_and_not_watched_is_a_warning(tmp_path: Path) -> None:
    """It is listed again and again; one that may not be listed either loses more than that."""
    server = ApiServer(denied=frozenset({"watch events", "watch horizontalpodautoscalers"}))
    async with loopback(server) as served:
        found = await findings(settings_with(kubeconfig=kubeconfig(tmp_path, served.url)))
    (watching,) = found["watching"]
    assert watching.status is Status.WARN
    assert "watch events in all namespaces, watch horizontalpodautoscalers" in watching.message
    assert not {"rights", "autoscalers"} & found.keys()


async def test_what_other_controllers_keep_may_be_missing_and_should_be_watched(tmp_path: Path) -> None:
    """A role without these kinds is none of the agent's business; one that lists them is asked to watch."""
    absent = frozenset(f"{verb} {kind}" for verb in ("list", "watch") for kind in ("canaries", "rollouts"))
    server = ApiServer(denied=absent | {"watch scaledobjects", "watch verticalpodautoscalers"})
    async with loopback(server) as served:
        settings = settings_with(
            kubeconfig=kubeconfig(tmp_path, served.url), environment_namespaces={"prod": "payments"}
        )
        found = await findings(settings)
    (watching,) = found["watching"]
    assert watching.status is Status.WARN
    assert watching.message.removeprefix("listed for each look instead: ").removesuffix(
        " is forbidden"
    ).split(", ") == [
        "watch verticalpodautoscalers in payments",
        "watch scaledobjects in payments",
    ]
    assert "rights" not in found


@pytest.mark.parametrize(
    ("listed", "actions", "check"),
    [(True, "notify", "Rollouts"), (True, "abort_rollout", "rights"), (False, "notify", None)],
)
async def test_rollouts_that_are_listed_must_be_read_one_by_one_too(
    tmp_path: Path, listed: bool, actions: str, check: str | None
) -> None:
    """Without the right their services have no evidence; an action on them requires it."""
    lists = frozenset[str]() if listed else frozenset({"list rollouts", "watch rollouts"})
    async with loopback(ApiServer(denied=lists | {"get rollouts"})) as served:
        settings = settings_with(kubeconfig=kubeconfig(tmp_path, served.url), enabled_actions=actions)
        found = await findings(settings)
    told = {
        name for name in ("Rollouts", "rights") if "get rollouts" in found.get(name, [ok("", "")])[0].message
    }
    assert told == ({check} if check else set())
    assert check != "Rollouts" or found["Rollouts"][0].status is Status.WARN
    assert check != "rights" or found["rights"][0].status is Status.FAIL


async def test_services_and_network_policies_that_may_not_be_read_are_a_warning(tmp_path: Path) -> None:
    """A role of an earlier version still works, without these causes."""
    server = ApiServer(denied=frozenset({"list services", "watch networkpolicies"}))
    async with loopback(server) as served:
        found = await findings(settings_with(kubeconfig=kubeconfig(tmp_path, served.url)))
    (routes,) = found["routes"]
    assert routes.status is Status.WARN
    assert "list services in all namespaces, watch networkpolicies in all namespaces" in routes.message
    assert "rights" not in found


async def test_all_rights_and_a_true_clock_are_well(tmp_path: Path) -> None:
    """The count says how many were asked for."""
    async with loopback(ApiServer()) as served:
        settings = settings_with(kubeconfig=kubeconfig(tmp_path, served.url))
        found = await findings(settings)
    assert found["rights"][0].status is Status.OK
    assert str(len(needed_rights(settings))) in found["rights"][0].message
    assert found["clock of the API server"][0].status is Status.OK


@pytest.mark.parametrize("minutes", [-3, 3])
async def test_a_clock_that_differs_fails(tmp_path: Path, minutes: int) -> None:
    """Staleness and soaks are judged by the clock, so skew is a failure in both directions."""
    async with loopback(ApiServer(ahead=timedelta(minutes=minutes))) as served:
        found = await findings(settings_with(kubeconfig=kubeconfig(tmp_path, served.url)))
    (clock,) = found["clock of the API server"]
    assert clock.status is Status.FAIL
    told = re.search(r"differs by ([+-]\d+) s", clock.message)
    assert told is not None
    assert int(told[1]) == pytest.approx(minutes * 60, abs=3)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (
            reply(
                403,
                {"kind": "Status", "apiVersion": "v1", "code": 403, "message": "no"},
                Content_Type="application/json",
            ),
            PermanentError,
        ),
        (reply(500, b"oops"), TransientError),
        (reply(201, b"oops", Content_Type="application/json"), TransientError),
        (raw(b""), TransientError),
    ],
)
async def test_rights_that_cannot_be_asked_for_are_an_error_of_the_port(
    tmp_path: Path, behaviour: Behaviour, error: type[Exception]
) -> None:
    """Whatever the server answers, the caller gets one of our errors."""
    async with loopback(behaviour) as served:
        settings = settings_with(kubeconfig=kubeconfig(tmp_path, served.url))
        with pytest.raises(error):
            await clock_and_rights(settings, needed_rights(settings), SystemClock())


async def test_no_data_for_any_service_is_a_failure_of_its_query(tmp_path: Path) -> None:
    """Prometheus answers and has nothing: the template's labels are likely wrong."""
    empty = reply(200, {"status": "success", "data": {"resultType": "vector", "result": []}})
    async with loopback(ApiServer()) as cluster, loopback(empty) as prometheus:
        found = await findings(
            settings_with(kubeconfig=kubeconfig(tmp_path, cluster.url), prometheus_url=prometheus.url)
        )
    assert found["prometheus"][0].status is Status.OK
    assert [f.status for f in found["queries"]] == [Status.FAIL] * 3
    assert "PROMETHEUS_ERROR_RATE_QUERY" in found["queries"][0].fix
    assert "shop in prod" in found["queries"][0].message


async def test_a_service_that_cannot_be_measured_is_named_with_the_reason(tmp_path: Path) -> None:
    """Prometheus answers two series where one number is meant: no service's fault hides the others'."""
    series = [{"metric": {"heal_index": str(n)}, "value": [1, "1"]} for n in range(2)]
    several = reply(200, {"status": "success", "data": {"resultType": "vector", "result": series}})
    async with loopback(ApiServer()) as cluster, loopback(several) as prometheus:
        found = await findings(
            settings_with(kubeconfig=kubeconfig(tmp_path, cluster.url), prometheus_url=prometheus.url)
        )
    assert found["prometheus"][0].status is Status.OK
    assert [f.status for f in found["queries"]] == [Status.FAIL]
    assert "services cannot be measured" in found["queries"][0].message
    assert "2 series instead of one" in found["queries"][0].message


# ------------------------------------------------------------------ the command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["heal", *arguments])
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def test_the_exit_code_shows_whether_anything_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings are 0, one failure is 1; text and JSON say the same."""
    monkeypatch.setenv("RUNBOOKS_DIR", str(RUNBOOKS))
    assert run(monkeypatch, "doctor") == 0
    assert "Fix:" in capsys.readouterr().out
    monkeypatch.setenv("RUNBOOKS_DIR", "nowhere")
    assert run(monkeypatch, "doctor") == 1
    capsys.readouterr()
    assert run(monkeypatch, "doctor", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert [one["check"] for one in told if one["status"] == "fail"] == ["runbooks"]
    assert told[0]["check"] == "configuration"
    assert all(one["fix"] == one["mend"] for one in told)


# ------------------------------------------------------------------ stories on a real cluster


def test_a_test_beds_settings_point_the_demo_at_it(tmp_path: Path) -> None:
    """The bed's addresses win, the user's store stays, and the pipeline has rights of its own."""
    env = tmp_path / "env"
    env.write_text(
        "KUBECONFIG=/bed/agent\nPROMETHEUS_URL=http://127.0.0.1:1\nPROMETHEUS_WINDOW=10s\n"
        "ALERTMANAGER_TOKEN=t\nTESTBED_ADMIN_KUBECONFIG=/bed/admin\n"
    )
    story = demo_live.testbed_story(settings_with(database_url="sqlite:///mine.db"), env, dry_run=False)
    assert str(story.settings.kubeconfig) == "/bed/agent"
    assert str(story.kubeconfig) == "/bed/admin"
    assert story.settings.database_url.get_secret_value() == "sqlite:///mine.db"
    assert story.settings.prometheus_window == "10s"
    assert not story.settings.dry_run
    assert ActionName.ROLLBACK in story.settings.enabled_actions
    assert demo_live.testbed_story(settings_with(), env, dry_run=True).settings.dry_run
    env.write_text("SOMETHING=else\n")
    with pytest.raises(CommandFailed, match="make testbed"):
        demo_live.testbed_story(settings_with(), env, dry_run=False)


def test_a_cluster_of_ones_own_needs_to_be_named(tmp_path: Path) -> None:
    """Without connection or with a malformed service nothing is released anywhere."""
    connected = settings_with(kubeconfig=tmp_path / "k", prometheus_url="http://127.0.0.1:1")
    assert str(demo_live.cluster_story(connected, "prod/shop", "bad", dry_run=True).key) == "shop in prod"
    for settings, service in ((settings_with(), "prod/shop"), (connected, "shop"), (connected, "/shop")):
        with pytest.raises(CommandFailed):
            demo_live.cluster_story(settings, service, "bad", dry_run=False)


# ------------------------------------------------------------------ people


async def test_each_channel_is_asked_and_nothing_is_posted() -> None:
    """Reachable or not, by its setting and without its address."""
    async with loopback(reply(405, "s3cr3t")) as server:
        found = await findings(
            settings_with(
                dry_run=False,
                notify_webhook_url=SecretStr(f"{server.url}/s3cr3t"),
                teams_webhook_url=SecretStr("http://127.0.0.1:9/s3cr3t"),
            )
        )
        assert [request.method for request in server.requests] == ["HEAD"]
    webhook, teams = found["people"]
    assert (webhook.status, webhook.message) == (Status.OK, "webhook is reachable")
    assert teams.status is Status.FAIL
    assert "TEAMS_WEBHOOK_URL" in teams.message
    assert "s3cr3t" not in repr(found["people"])


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({}, None),
        ({"slack_bot_token": SecretStr("xoxb-revoked")}, "SLACK_BOT_TOKEN is invalid or was revoked"),
        ({"slack_channel": "C0NOWHERE"}, "SLACK_CHANNEL must be the id of a channel the app has joined"),
    ],
    ids=["well", "token", "channel"],
)
async def test_slack_is_asked_and_what_is_wrong_is_reported_with_its_fix(
    changes: dict[str, Any], fix: str | None
) -> None:
    """Nothing is posted, and no token is shown."""
    async with slack_standin() as slack:
        values = {
            "dry_run": False,
            "slack_bot_token": SecretStr(BOT_TOKEN),
            "slack_channel": CHANNEL,
            "slack_api_url": slack.api_url,
        }
        (people,) = (await findings(settings_with(**{**values, **changes})))["people"]
        assert slack.count("chat.postMessage") == 0
    assert people.status is (Status.OK if fix is None else Status.FAIL)
    assert (fix or "slack is reachable") in people.message
    assert "xoxb" not in repr(people)


async def test_a_channel_that_could_never_work_fails_with_its_setting() -> None:
    """As the start would."""
    found = await findings(
        settings_with(
            dry_run=False,
            notify_webhook_url=SecretStr("http://127.0.0.1:9/"),
            notify_webhook_secret=SecretStr("hunter2"),
        )
    )
    (people,) = found["people"]
    assert people.status is Status.FAIL
    assert "NOTIFY_WEBHOOK_SECRET" in people.message
    assert "hunter2" not in repr(people)


async def test_in_a_dry_run_no_channel_is_asked() -> None:
    """There is none (promise 5); what is set is named."""
    async with loopback(reply(200)) as server:
        found = await findings(settings_with(teams_webhook_url=SecretStr(server.url)))
        assert server.requests == []
    (people,) = found["people"]
    assert (people.status, people.message) == (
        Status.OK,
        "TEAMS_WEBHOOK_URL set; a dry run sends no notifications",
    )


async def test_a_dry_run_warns_of_a_channel_that_could_not_be_constructed() -> None:
    """Before the dry run ends, not at the start after it; nothing is asked."""
    async with loopback(reply(200)) as server:
        found = await findings(
            settings_with(
                notify_webhook_url=SecretStr(server.url), notify_webhook_secret=SecretStr("hunter2")
            )
        )
        assert server.requests == []
    configured, wrong = found["people"]
    assert configured.status is Status.OK
    assert wrong.status is Status.WARN
    assert "NOTIFY_WEBHOOK_SECRET must be whsec_ and 24 to 64 bytes in base64" in wrong.message
    assert "hunter2" not in repr(found)


async def test_roles_that_no_person_can_have_are_reported() -> None:
    """ROLE_SCOPES without a source of roles has no effect; approval roles are then for tokens only."""
    found = await findings(settings_with(require_identity=True, role_scopes={"sre": ("approve",)}))
    assert found["roles"][0].status is Status.WARN
    assert "ROLE_SCOPES has no effect: neither OIDC_ISSUER nor SLACK_USERS" in found["roles"][0].message
    steps = ({"after_seconds": 60, "roles": ["lead"]},)
    asked = settings_with(require_identity=True, approval_roles="sre", approval_escalation=steps)
    [one] = (await findings(asked))["roles"]
    assert "approvals need the role lead or sre, which only tokens can have" in one.message
    assert "--role lead" in one.fix
    assert "roles" not in await findings(settings_with(require_identity=True))
    lonely = await findings(settings_with(approval_escalation=steps))
    assert "no person can have the role lead" in lonely["approvals"][0].message
