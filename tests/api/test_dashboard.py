"""The dashboard shows what happened and runs nothing that anyone sent."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import Connection

from tests.api.harness import DEPLOY, Harness, harness, make_settings
from tests.api.stories import awaiting, given_up, opened, proposed

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


class _Elements(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def _parsed(html: str) -> _Elements:
    elements = _Elements()
    elements.feed(html)
    return elements


def _own_scripts(elements: _Elements) -> list[str]:
    """The files that the page's scripts come from."""
    sources = [str(value) for name, value in elements.attributes if name == "src"]
    return [value for value in sources if value.startswith("/static/") and value.endswith(".js")]


def test_the_root_leads_to_the_dashboard(api: Harness) -> None:
    """A person who opens the address finds the incidents."""
    response = api.get("/")
    assert response.status_code == 303
    assert response.headers["location"] == "/dashboard"


def test_an_empty_list_says_what_to_do(api: Harness) -> None:
    """A newcomer is not left with an empty table."""
    text = _parsed(api.get("/dashboard").text).text
    assert "No incidents" in text
    assert "make demo" in text


def test_the_list_shows_state_service_and_triggers(api: Harness) -> None:
    """One row for each active incident, of two equally urgent ones the older first, with its age."""
    api.run(opened(api.container))
    api.run(api.clock.advance(190))
    api.run(opened(api.container, "shop"))
    page = api.get("/dashboard").text
    assert page.index("payments-api") < page.index("shop")
    text = " ".join(_parsed(page).text.split())
    assert "deploy failed" in text
    assert "crash loop" in text
    assert "3 m 10 s ago" in text


def test_filters_narrow_the_list(api: Harness) -> None:
    """What is filtered for stays in the form."""
    api.run(opened(api.container))
    api.run(opened(api.container, "shop"))
    page = api.get("/dashboard?service=shop&state=open&environment=").text
    assert "payments-api" not in page
    assert 'value="shop"' in page
    assert "No incident matches" in api.get("/dashboard?state=recovered").text


@pytest.mark.parametrize(
    "query", ["state=closed", "service=UPPER", "cursor=nonsense", "surplus=1", "limit=0"]
)
def test_a_filter_that_fits_nothing_is_explained(api: Harness, query: str) -> None:
    """The page stays, with the fix in it."""
    response = api.get(f"/dashboard?{query}")
    assert response.status_code == 422
    assert 'role="alert"' in response.text
    assert query.partition("=")[0] in response.text


def test_older_incidents_are_a_link_away(api: Harness) -> None:
    """The cursor keeps the filter."""
    for number in range(3):
        api.run(opened(api.container, f"service-{number}"))
        api.run(api.clock.advance(1))
    first = _parsed(api.get("/dashboard?limit=2&environment=prod").text)
    links = [value for name, value in first.attributes if name == "href" and "cursor=" in value]
    assert len(links) == 1
    older = api.get(links[0]).text
    assert "service-0" in older
    assert "service-1" not in older


def test_an_incident_reads_like_a_story(api: Harness) -> None:
    """Six stages in order, with evidence, plan, decisions, rehearsals, verdict and records."""
    incident_id = api.run(proposed(api.container))
    page = api.get(f"/dashboard/incidents/{incident_id}").text
    elements = _parsed(page)
    chapters = ["observe", "diagnose", "plan", "execute", "verify", "learn"]
    assert [one for one in elements.ids if one in chapters] == chapters
    text = " ".join(elements.text.split())
    for said in (
        "bad release",
        "88%",
        "the old ones serve",
        "latency rose a little before the release",
        "roll-back-bad-release@2",
        "traffic did not rise",
        "deny",
        "ALLOW_HIGH_RISK_ACTIONS is false",
        "would accept",
        "would change",
        "rehearsed",
        "not recovered",
        "no action was taken",
        "closed after 10 m",
    ):
        assert said in text
    assert "Nothing left to do" not in text, "the proposal is to be applied by hand"
    record = api.get(f"/incidents/{incident_id}").json()
    assert all(entry["hash"] in page for entry in record["timeline"])


def test_an_open_incident_shows_where_it_stands(api: Harness) -> None:
    """Stages that were not reached say so, and the page keeps itself fresh."""
    incident_id = api.run(opened(api.container))
    page = api.get(f"/dashboard/incidents/{incident_id}").text
    assert page.count("Not reached yet.") == 5
    assert 'aria-current="step"' in page
    assert "live.js" in page
    ended = api.get(f"/dashboard/incidents/{api.run(proposed(api.container, service='shop'))}").text
    assert "Not reached yet." not in ended


def test_a_stage_with_a_result_is_done(api: Harness) -> None:
    """A diagnosis and a plan are shown as reached, also where no entry of the timeline says so."""
    incident_id = api.run(awaiting(api.container)).replace("apr_", "inc_")
    page = " ".join(_parsed(api.get(f"/dashboard/incidents/{incident_id}").text).text.split())
    assert "Diagnose done Plan done Decide and execute now" in page
    assert "not needed" not in page
    assert "No entry was recorded" not in page


def test_a_row_of_the_board_says_each_thing_once(api: Harness) -> None:
    """The summary of an incident without a diagnosis only repeats its triggers and its service."""
    api.run(opened(api.container))
    text = " ".join(_parsed(api.get("/dashboard").text).text.split())
    assert text.count("deploy failed, high error rate, high latency, crash loop") == 1
    api.run(awaiting(api.container, service="cart"))
    page = api.get("/dashboard").text
    assert "cart in prod:" not in page
    assert ">approve or deny</a>" in page


def test_nothing_sent_becomes_markup(api: Harness) -> None:
    """Hostile text in every place where outside text can appear stays text."""
    incident_id = api.run(proposed(api.container, text=HOSTILE))
    for path in ("/dashboard", f"/dashboard/incidents/{incident_id}", f"/dashboard?service={HOSTILE}"):
        elements = _parsed(api.get(path).text)
        assert elements.tags.count("script") == len(_own_scripts(elements))
        assert elements.tags.count("img") == 1
        assert not [name for name, _ in elements.attributes if name.startswith("on")]
    page = api.get(f"/dashboard/incidents/{incident_id}")
    assert page.text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 10
    assert HOSTILE in _parsed(page.text).text


def test_a_hostile_version_posted_over_http_stays_text(api: Harness) -> None:
    """Input from outside: a version that is markup is stored as received and shown as text."""
    version = "<img src=x onerror=alert(1)>"
    answer = api.post("/events/deploy", json={**DEPLOY, "version": version}).json()
    page = api.get(f"/dashboard/incidents/{answer['incident_id']}").text
    assert version not in page
    assert version in _parsed(page).text


def test_an_unknown_incident_is_a_page_too(api: Harness) -> None:
    """A person gets a way back instead of JSON."""
    response = api.get("/dashboard/incidents/inc_none")
    assert response.status_code == 404
    assert "Back to all incidents" in response.text


@pytest.mark.parametrize(("dry_run", "said"), [(True, "DRY RUN"), (False, "LIVE")])
def test_the_mode_is_said_on_every_page(tmp_path: Path, dry_run: bool, said: str) -> None:
    """The page shows whether the agent acts."""
    with harness(make_settings(tmp_path, dry_run=dry_run)) as api:
        incident_id = api.run(opened(api.container))
        for path in ("/dashboard", f"/dashboard/incidents/{incident_id}", "/dashboard/incidents/none"):
            assert said in api.get(path).text


def test_what_an_incident_waits_for_stands_first(api: Harness) -> None:
    """Action, target, risk, reasons and expiry, with a form that needs no script."""
    approval_id = api.run(awaiting(api.container))
    incident_id = approval_id.replace("apr_", "inc_")
    page = _parsed(api.get(f"/dashboard/incidents/{incident_id}").text)
    text = " ".join(page.text.split())
    assert "Approve the rollback? high risk" in text
    assert "Deployment payments/payments-api to_revision=7" in text
    assert "APPROVAL_FOR_RISKS requires an approval" in text
    assert "2026-02-20 21:02:00 UTC" in text
    assert ("action", f"/dashboard/approvals/{approval_id}") in page.attributes
    assert ("method", "post") in page.attributes
    assert "The incident ended" not in text
    assert "awaiting approval" in _parsed(api.get("/dashboard").text).text


def test_the_inbox_reads_the_store_as_often_for_many_approvals_as_for_one(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty requests at 3 a.m. are shown as fast as the first."""
    reads = 0
    database = api.container.store.incidents.database  # type: ignore[attr-defined]  # the shipped store
    real = database.read

    async def counted(work: Callable[[Connection], object], *, urgent: bool = False) -> object:
        nonlocal reads
        reads += 1
        return await real(work, urgent=urgent)

    monkeypatch.setattr(database, "read", counted)
    seen = []
    for number in range(4):
        api.run(awaiting(api.container, service=f"shop-{number}"))
        reads = 0
        page = _parsed(api.get("/dashboard/approvals").text)
        forms = [value for name, value in page.attributes if name == "action" and "/approvals/" in value]
        seen.append((len(forms), reads))
    assert [forms for forms, _ in seen] == [1, 2, 3, 4]
    assert len({times for _, times in seen}) == 1, seen


@pytest.mark.parametrize(("decision", "state"), [("approve", "approved"), ("deny", "denied")])
def test_the_form_answers_and_leads_back(api: Harness, decision: str, state: str) -> None:
    """A second click of the same person leads back as well; the form is gone, the answer stands."""
    approval_id = api.run(awaiting(api.container))
    form = {"decision": decision, "by": " ann ", "comment": ""}
    for _ in range(2):
        response = api.post(f"/dashboard/approvals/{approval_id}", data=form)
        assert response.status_code == 303
        assert response.headers["location"] == f"/dashboard/incidents/{approval_id.replace('apr_', 'inc_')}"
    text = " ".join(_parsed(api.get(response.headers["location"]).text).text.split())
    assert "Approve the rollback?" not in text
    assert f"Approval of rollback: {state} by ann" in text
    assert api.get(f"/approvals/{approval_id}").json()["state"] == state


def test_the_second_person_learns_who_was_first(api: Harness) -> None:
    """As a page, with a way back."""
    approval_id = api.run(awaiting(api.container))
    path = f"/dashboard/approvals/{approval_id}"
    api.post(path, data={"decision": "deny", "by": "ann", "comment": ""})
    late = api.post(path, data={"decision": "approve", "by": "bob", "comment": ""})
    assert late.status_code == 409
    assert "denied by ann" in late.text
    assert "Back to all incidents" in late.text


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ("decision=approve&by=++", 422),
        ("decision=perhaps&by=ann", 422),
        ("by=ann", 422),
        ("decision=approve&by=a%00", 422),
        ("decision=approve&decision=deny&by=ann", 400),
        ("decision=approve&by=ann%ED%B0%80", 400),
        ("&".join(f"field{number}=1" for number in range(100)), 400),
    ],
)
def test_a_form_that_says_nothing_usable_answers_nothing(api: Harness, form: str, status: int) -> None:
    """The page says what to fix."""
    approval_id = api.run(awaiting(api.container))
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = api.post(f"/dashboard/approvals/{approval_id}", content=form, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"].startswith("text/html")
    assert api.get(f"/approvals/{approval_id}").json()["state"] == "pending"


def test_a_form_in_another_format_is_refused(api: Harness) -> None:
    """JSON has a door of its own."""
    approval_id = api.run(awaiting(api.container))
    response = api.post(f"/dashboard/approvals/{approval_id}", json={"decision": "approve", "by": "ann"})
    assert response.status_code == 415
    assert api.post("/dashboard/approvals/none", data={"decision": "deny", "by": "a"}).status_code == 404


def test_an_expired_request_has_no_form(api: Harness) -> None:
    """What cannot be answered any more is not offered."""
    approval_id = api.run(awaiting(api.container))
    api.run(api.clock.advance(4 * 3600))
    page = _parsed(api.get(f"/dashboard/incidents/{approval_id.replace('apr_', 'inc_')}").text)
    assert not [value for name, value in page.attributes if name == "action" and "approvals" in str(value)]


def test_hostile_text_in_what_is_asked_and_answered_stays_text(api: Harness) -> None:
    """Reasons come from policy engines, names and comments from any person."""
    approval_id = api.run(awaiting(api.container, text=HOSTILE))
    path = f"/dashboard/incidents/{approval_id.replace('apr_', 'inc_')}"
    before = _parsed(api.get(path).text)
    api.post(f"/approvals/{approval_id}", json={"decision": "deny", "by": HOSTILE, "comment": HOSTILE})
    brake = {"engaged": True, "by": HOSTILE, "reason": HOSTILE}
    assert api.request("PUT", "/brakes/kill-switch", json=brake).status_code == 200
    after = _parsed(api.get(path).text)
    for elements in (before, after):
        assert HOSTILE in elements.text
        assert elements.tags.count("script") == len(_own_scripts(elements))
        assert elements.tags.count("img") == 1
        assert not [name for name, _ in elements.attributes if name.startswith("on")]


def test_an_engaged_kill_switch_is_said_on_every_page(api: Harness) -> None:
    """Who, and why; and nothing once it is released."""
    incident_id = api.run(opened(api.container))
    pages = ("/dashboard", f"/dashboard/incidents/{incident_id}", "/dashboard/incidents/none")
    on = {"engaged": True, "by": "ann", "reason": "database migration"}
    api.request("PUT", "/brakes/kill-switch", json=on)
    for path in pages:
        text = " ".join(_parsed(api.get(path).text).text.split())
        assert "KILL SWITCH No new action starts. Engaged by ann at 2026-02-20 17:02:00 UTC" in text
        assert "database migration" in text
    api.request("PUT", "/brakes/kill-switch", json={"engaged": False, "by": "ann"})
    assert all("KILL SWITCH" not in api.get(path).text for path in pages)


# ------------------------------------------------------------ the page of one request


def test_a_request_has_a_page_of_its_own(api: Harness) -> None:
    """What, why, who must agree and until when, with the form; answered there, it leads back there."""
    approval_id = api.run(awaiting(api.container))
    address = f"/approvals/{approval_id}/page"
    page = api.get(address)
    assert page.status_code == 200
    assert approval_id in page.text
    assert "APPROVAL_FOR_RISKS" in page.text
    form = {"decision": "approve", "by": "ann", "comment": "seen", "back": approval_id}
    answered = api.post(f"/dashboard/approvals/{approval_id}", data=form)
    assert (answered.status_code, answered.headers["location"]) == (303, address)
    told = api.get(address).text
    assert "approved by ann (seen)" in told
    assert "<form" not in told


@pytest.mark.parametrize("name", ["apr_0", "apr_" + "0" * 32, "..", "<script>"])
def test_a_request_that_is_not_there_is_a_page_too(api: Harness, name: str) -> None:
    """With what to try instead, and nothing of the address as markup."""
    page = api.get(f"/approvals/{quote(name, safe='')}/page")
    assert page.status_code == 404
    assert "<script>" not in page.text


def test_no_one_is_led_elsewhere_by_the_form(api: Harness) -> None:
    """Whatever stands in the hidden field: only the request's own page, or the incident."""
    approval_id = api.run(awaiting(api.container))
    form = {"decision": "deny", "by": "ann", "comment": "", "back": "https://evil.example"}
    answered = api.post(f"/dashboard/approvals/{approval_id}", data=form)
    assert answered.headers["location"].startswith("/dashboard/incidents/inc_")


def test_a_page_says_when_it_is_too_late(api: Harness) -> None:
    """After the expiry, and after the incident moved on, there is no form any more."""
    approval_id = api.run(awaiting(api.container))
    api.run(api.clock.advance(4 * 3600))
    late = api.get(f"/approvals/{approval_id}/page").text
    assert "<form" not in late
    api.run(given_up(api.container, approval_id))
    gone = api.get(f"/approvals/{approval_id}/page").text
    assert "No answer is needed" in gone
    assert "<form" not in gone
