"""The catalogues over HTTP: services page by page, runbooks and policies with their history, and pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from app.agent.ids import ServiceKey
from app.agent.workload import ConfigRecord, RevisionHealth, RevisionRecord
from app.bootstrap import Adapters
from app.connectors.policy.embedded import EmbeddedPolicy
from tests.api.harness import DEPLOY, NOW, Harness, assert_problem, harness, make_settings
from tests.api.stories import proposed
from tests.unit.heal_command import Heal, heal

__all__ = ["heal"]


def test_services_are_listed_page_by_page(api: Harness, heal: Heal, tmp_path: Path) -> None:
    """By environment and name, each once, with its newest incident; filters narrow the list."""
    for number in range(5):
        api.post("/events/deploy", json={**DEPLOY, "service": f"service-{number}"})
    api.post("/events/deploy", json={**DEPLOY, "service": "service-1", "environment": "dev"})
    api.run(_remember(api, ServiceKey(environment="prod", service="service-1")))
    api.run(_remember(api, ServiceKey(environment="prod", service="watched")))
    seen: list[dict[str, str]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.get(f"/v1/services?limit=2{cursor}").json()
        seen += page["items"]
        cursor = f"&cursor={page['next']}" if page["next"] else None
    names = [f"{one['environment']}/{one['service']}" for one in seen]
    assert names == ["dev/service-1", *(f"prod/service-{number}" for number in range(5)), "prod/watched"]
    assert {one["state"] for one in seen[:-1]} == {"open"}
    assert seen[-1]["incident"] is None
    assert len(api.get("/v1/services?q=vice-1").json()["items"]) == 2
    assert len(api.get("/v1/services?environment=dev").json()["items"]) == 1
    (tmp_path / ".env").write_text(f"DATABASE_URL=sqlite:///{tmp_path}/heal.db\nPORT=9\n")
    assert "service-1" in heal("services", "list", "--environment", "dev").out
    assert "raise --limit" in heal("services", "list", "--limit", "3").out
    page = api.get("/dashboard/services?limit=2&environment=prod").text
    assert 'href="/dashboard/services?limit=2&amp;environment=prod&amp;cursor=prod%2Fservice-1"' in page


def test_a_service_shows_its_history(api: Harness) -> None:
    """Revisions and the names of configuration keys; never the contents of a ConfigMap."""
    key = ServiceKey(environment="prod", service="shop")
    api.run(_remember(api, key))
    found = api.get("/v1/services/prod/shop").json()
    assert [(one["number"], one["health"]) for one in found["revisions"]] == [(7, "served_well")]
    assert [(one["name"], one["keys"]) for one in found["configs"]] == [("shop-config", ["limit"])]
    page = api.get("/dashboard/services/prod/shop").text
    assert "served well" in page
    assert "value-of-limit" not in page
    assert "value-of-limit" not in str(found)


async def _remember(api: Harness, key: ServiceKey) -> None:
    history = api.container.store.history
    await history.record_revision(
        RevisionRecord(
            key=key,
            template_hash="5d9f",
            number=7,
            health=RevisionHealth.SERVED_WELL,
            seen_at=NOW,
            reason="complete and within the SLO",
        )
    )
    await history.record_config(
        ConfigRecord(
            key=key,
            name="shop-config",
            content_hash="77aa",
            data={"limit": "value-of-limit"},
            health=RevisionHealth.SERVED_WELL,
            seen_at=NOW,
        )
    )


@pytest.mark.parametrize(("path", "parts"), [("/v1/runbooks", 1), ("/v1/policies", 2)])
def test_a_catalogue_counts_only_what_it_shows(api: Harness, path: str, parts: int) -> None:
    """The other parts of a report are not counted for it."""
    grouped: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "GROUP BY" in statement:
            grouped.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert api.get(path).status_code == 200
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(grouped) == parts


def test_runbooks_show_what_they_achieved(api: Harness) -> None:
    """The catalogue in force; a version that planned is among its history."""
    api.run(proposed(api.container))
    api.run(api.clock.advance(60))
    found = api.get("/v1/runbooks").json()
    by_id = {one["id"]: one for one in found["items"]}
    assert by_id["roll-back-bad-release"]["steps"][0]["action"] == "rollback"
    [result] = by_id["roll-back-bad-release"]["history"]
    assert (result["runbook"], result["planned"], result["worked"]["of"]) == ("roll-back-bad-release@2", 1, 0)
    assert found["retired"] == []
    page = api.get("/dashboard/runbooks").text
    assert "roll-back-bad-release@2" in page
    without = [one for one in found["items"] if not one["steps"]]
    assert without
    assert page.count("none: the incident is escalated") == len(without)
    assert "<ol></ol>" not in page


def test_policies_show_their_files_and_decisions(api: Harness) -> None:
    """What is in force, with its hash, and why it denied."""
    api.run(proposed(api.container))
    api.run(api.clock.advance(60))
    found = api.get("/v1/policies").json()
    assert (found["engine"], found["items"]) == ("none", [])
    assert {one["decision"] for one in found["decisions"]} == {"deny", "allow"}
    page = api.get("/dashboard/policies").text
    assert found["reasons"][0]["reason"].split(":")[0] in page


def test_policies_of_the_embedded_engine_are_shown_with_their_hash(tmp_path: Path) -> None:
    """Without their tests, and as text: a policy is no markup."""
    (tmp_path / "own.rego").write_text("package heal\n\n# <b>deny all</b>\ndefault decision := 1\n")
    (tmp_path / "own_test.rego").write_text("package heal\n\ntest_nothing if true\n")
    settings = make_settings(tmp_path)
    engine = EmbeddedPolicy(tmp_path)
    with harness(settings, world=Adapters(policy_engine=engine)) as api:
        found = api.get("/v1/policies").json()
        assert [(Path(one["file"]).name, len(one["hash"])) for one in found["items"]] == [("own.rego", 64)]
        assert "# <b>deny all" not in api.get("/dashboard/policies").text
        assert "# &lt;b&gt;deny all" in api.get("/dashboard/policies").text
        api.run(engine.aclose())


@pytest.mark.parametrize("query", ["cursor=prod", "limit=0", "q=A%20B", "environment=A_B", "more=1"])
def test_a_list_of_services_that_is_none_is_refused(api: Harness, query: str) -> None:
    """With the field and the fix; the page shows both."""
    assert_problem(api.get(f"/v1/services?{query}"), 422)
    assert api.get(f"/dashboard/services?{query}").status_code == 422


@pytest.mark.parametrize("name", ["services", "runbooks", "policies"])
def test_short_addresses_lead_to_the_pages(api: Harness, name: str) -> None:
    """With their query."""
    answer = api.get(f"/{name}?q=a", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, f"/dashboard/{name}?q=a")
    assert api.get(f"/dashboard/{name}").status_code == 200
