"""What is set for single services: the file, its reload, and where its terms take effect."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from msgspec import structs

from app.agent.execution.recheck import lapsed
from app.agent.ids import ApprovalId, IncidentId, IntentId, ServiceKey
from app.agent.intake import IntakeRules
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Decision,
    DecisionKind,
    DispositionKind,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    MetricSample,
    SliSample,
)
from app.agent.policy import Policy
from app.agent.services.annotated import SLO_PREFIX, AnnotatedServices
from app.agent.services.terms import Autonomy, FixedServices, ServiceTerms
from app.agent.slo import SloThresholds
from app.connectors.mappings import mapping_findings
from app.connectors.readiness import services_read
from app.errors import ConfigurationError
from app.settings.services import WatchedServices, read_services, schema_text
from scripts.schemas import SERVICES, written
from tests.stories import KEY, messages, settings_for, story
from tests.test_policy import LIMITS, QUESTION

NOW = datetime(2026, 2, 20, 17, tzinfo=UTC)
SHOP = ServiceKey(environment="prod", service="shop")
FILE = """\
schema: 1
services:
  prod/shop:
    owner: team-checkout
    objectives: {max_error_rate: 0.01, min_request_rate: 2}
    dependencies: [ledger, shared/db]
    autonomy: ask
"""
USUAL = SloThresholds(
    max_error_rate=0.05,
    max_p95_latency_ms=1000,
    clear_ratio=0.8,
    breach_for=timedelta(0),
    reopen_after=timedelta(hours=1),
)


def saved(folder: Path, text: str) -> Path:
    file = folder / "services.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def fixed(**terms: object) -> FixedServices:
    return FixedServices(terms={SHOP: replace(ServiceTerms(key=SHOP), **terms)})  # type: ignore[arg-type]  # real fields


def test_a_file_gives_the_terms_of_its_services(tmp_path: Path) -> None:
    """What is left out stays as the settings say; a callee is of the same environment unless named."""
    assert read_services(saved(tmp_path, FILE)) == {
        SHOP: ServiceTerms(
            key=SHOP,
            max_error_rate=0.01,
            min_request_rate=2,
            owner="team-checkout",
            dependencies=(
                ServiceKey(environment="prod", service="ledger"),
                ServiceKey(environment="shared", service="db"),
            ),
            autonomy=Autonomy.ASK,
        )
    }


@pytest.mark.parametrize(
    ("written", "instead", "place"),
    [
        ("autonomy: ask", "autonomy: maybe", ":7:15: .*autonomy"),
        ("max_error_rate: 0.01", "max_error_rate: 1.5", ":5:34: .*max_error_rate"),
        ("owner:", "ownr:", ":4:5: .*unknown field"),
        ("prod/shop:", "shop:", ":3:3: .*write environment/service"),
        ("schema: 1", "schema: 2", ":1:9: "),
        ("services:", "servces:", ":2:1: "),
        ("[ledger, shared/db]", "ledger", ":6:19: "),
        ("schema: 1", "- schema: 1", "services.yaml"),
    ],
)
def test_a_mistake_is_reported_where_it_stands(
    tmp_path: Path, written: str, instead: str, place: str
) -> None:
    """With file, line and column; editors that check the schema find it too."""
    text = FILE.replace(written, instead)
    with pytest.raises(ConfigurationError, match=place):
        read_services(saved(tmp_path, text))
    if not instead.startswith("-"):
        assert list(Draft202012Validator(json.loads(schema_text())).iter_errors(yaml.safe_load(text)))


def test_the_published_schema_is_that_of_the_types() -> None:
    """`python -m scripts.schemas` writes it, and it accepts a valid file."""
    assert SERVICES.read_text(encoding="utf-8") == written(SERVICES) == schema_text()
    assert not list(Draft202012Validator(json.loads(schema_text())).iter_errors(yaml.safe_load(FILE)))


def test_an_invalid_file_leaves_the_last_valid_terms_in_force(tmp_path: Path) -> None:
    """The problem is known until the file is valid again; a missing file is a problem too."""
    watched = WatchedServices(saved(tmp_path, FILE))
    saved(tmp_path, FILE.replace("ask", "observes"))
    watched.reload()
    assert watched.problem is not None
    assert "services.yaml:7:15" in watched.problem
    assert watched.all()[SHOP].autonomy is Autonomy.ASK
    watched.file.unlink()
    watched.reload()
    assert watched.problem is not None
    assert watched.all()[SHOP].autonomy is Autonomy.ASK
    saved(tmp_path, FILE.replace("ask", "observe"))
    watched.reload()
    assert watched.problem is None
    assert watched.all()[SHOP].autonomy is Autonomy.OBSERVE


def test_doctor_names_services_that_the_cluster_does_not_have(tmp_path: Path) -> None:
    """A misspelt name would leave its service as the settings say."""
    settings = settings_for(tmp_path, services_file=saved(tmp_path, FILE))
    (finding,) = mapping_findings(settings, [SHOP, structs.replace(SHOP, service="ledger")])
    assert "SERVICES_FILE" in finding.message
    assert finding.message.endswith(": shared/db")


async def test_readiness_shows_an_invalid_file_and_stays_ready(tmp_path: Path) -> None:
    """A typing mistake in a file does not take the agent out of service."""
    watched = WatchedServices(saved(tmp_path, FILE))
    ((name, check),) = services_read(watched)
    assert (name, await check()) == ("services file", None)
    saved(tmp_path, FILE.replace("ask", "observes"))
    said = await check()
    assert said is not None
    assert "services.yaml:7:15" in said
    assert services_read(None) == ()


@pytest.mark.parametrize(
    ("terms", "errors", "opened"),
    [
        ({}, 0.03, False),
        ({"max_error_rate": 0.01}, 0.03, True),
        ({"max_error_rate": 0.5}, 0.2, False),
        ({"max_error_rate": 0.01, "min_request_rate": 50.0}, 0.03, False),
    ],
)
def test_intake_judges_a_service_by_its_own_objectives(
    terms: dict[str, float], errors: float, *, opened: bool
) -> None:
    """Stricter or looser than usual; another service is judged as usual."""
    rules = IntakeRules(slo=replace(USUAL, services=fixed(**terms)))

    def kind(key: ServiceKey) -> DispositionKind:
        sample = MetricSample(error_rate=errors, p95_latency_ms=None, crash_looping=None, request_rate=10.0)
        signal = new_signal(
            key=key,
            source="http",
            observed_at=NOW,
            received_at=NOW,
            payload=sample,
            stale_after=timedelta(hours=1),
        )
        return rules(signal, None, None, None).disposition.kind

    assert (kind(SHOP) is DispositionKind.OPENED) is opened
    other = ServiceKey(environment="prod", service="other")
    assert (kind(other) is DispositionKind.OPENED) is (errors > USUAL.max_error_rate)


def test_own_objectives_replace_only_what_they_name() -> None:
    """How long a breach must last, and what is not set, is the same for all."""
    own = replace(USUAL, services=fixed(max_p95_latency_ms=300.0)).of(SHOP)
    assert (own.max_p95_latency_ms, own.max_error_rate, own.breach_for) == (300.0, 0.05, timedelta(0))
    assert own.breaches(SliSample(at=NOW, error_rate=0.0, p95_latency_ms=400.0, request_rate=9.0))


@pytest.mark.parametrize(
    ("autonomy", "high_risk", "expected"),
    [
        (Autonomy.ACT, True, DecisionKind.ALLOW),
        (Autonomy.ASK, True, DecisionKind.NEEDS_APPROVAL),
        (Autonomy.OBSERVE, True, DecisionKind.DENY),
        (Autonomy.ACT, False, DecisionKind.DENY),
        (Autonomy.ASK, False, DecisionKind.DENY),
    ],
)
async def test_autonomy_only_narrows(autonomy: Autonomy, *, high_risk: bool, expected: DecisionKind) -> None:
    """What the settings deny stays denied, whatever a service is set to; checked again before the write."""
    limits = replace(LIMITS, allow_high_risk=high_risk, services=fixed(autonomy=autonomy))
    decision = await Policy(limits=limits).decide(QUESTION)
    assert decision.kind is expected
    allowed = Decision(
        kind=DecisionKind.ALLOW, reasons=(), plan_hash="plan-hash", target_token="u/3", at=NOW, rules=()
    )
    intent = Intent(
        id=IntentId("int_1"),
        incident_id=IncidentId("inc_1"),
        sequence=0,
        action=QUESTION.action,
        dry_run=False,
        decision=allowed,
        rehearsal=None,
        state=IntentState.DECIDED,
    )
    record = IncidentRecord(
        incident=replace(QUESTION.incident, plan=QUESTION.plan), timeline=(), intents=(intent,)
    )
    why = lapsed(record, intent, limits, NOW, can_write=True)
    assert (why is not None) is (expected is not DecisionKind.ALLOW)
    approved = replace(intent, approval=ApprovalId("apr_1"))
    why = lapsed(record, approved, limits, NOW, can_write=True)
    assert (why is not None) is (expected is DecisionKind.DENY)


def test_a_file_for_many_services_is_read(tmp_path: Path) -> None:
    """A limit that is reached while a person narrows a service would leave it as it was."""
    entries = "".join(
        f"  prod/service-{number}: {{owner: a-team, autonomy: observe}}\n" for number in range(2000)
    )
    assert len(read_services(saved(tmp_path, f"schema: 1\nservices:\n{entries}"))) == 2000


async def test_the_terms_of_a_service_take_effect_while_the_agent_runs(tmp_path: Path) -> None:
    """Its errors are within the usual objective and outside its own; the fix needs an approval."""
    file = saved(tmp_path, f"schema: 1\nservices:\n  {KEY.environment}/{KEY.service}: {{autonomy: act}}\n")
    changes: dict[str, Any] = {"dry_run": False, "allow_high_risk_actions": True, "slo_max_error_rate": 0.9}
    async with story(tmp_path, services_file=file, **changes) as stage:
        stage.deploy()
        await stage.live(400)
        terms = "{objectives: {max_error_rate: 0.05}, dependencies: [ledger], autonomy: ask}"
        file.write_text(f"schema: 1\nservices:\n  {KEY.environment}/{KEY.service}: {terms}\n")
        assert stage.agent.services is not None
        stage.agent.services.reload()
        assert stage.agent.observer.calls[KEY] == (structs.replace(KEY, service="ledger"),)
        assert stage.agent.loop.stages.verifier.rules_of(KEY).slo.max_error_rate == 0.05
        stage.world.release("prod", KEY.service, "shop:2-errors")
        approval = await stage.live_until_asked()
        await stage.say(approval, yes=True)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert "autonomy of shop is ask" in messages(record.timeline)


def annotated(*written: tuple[str, str], base: FixedServices | None = None) -> AnnotatedServices:
    found = AnnotatedServices(FixedServices(terms={}) if base is None else base)
    found.learn(SHOP, [(SLO_PREFIX + name, value) for name, value in written])
    return found


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("max-error-rate", "0.01", True),
        ("max-error-rate", "1.5", False),
        ("max-error-rate", "nan", False),
        ("max-p95-latency-ms", "400", True),
        ("max-p95-latency-ms", "-1", False),
        ("max-p95-latency-ms", "9" * 400, False),
        ("min-request-rate", "2", True),
        ("min-request-rate", "two", False),
        ("max-errors", "0.01", False),
    ],
)
def test_an_annotation_sets_an_objective_within_bounds(name: str, value: str, *, valid: bool) -> None:
    """What is not valid is a short warning, and changes nothing."""
    found = annotated((name, value))
    assert bool(found.problems(SHOP)) is not valid
    assert (found.of(SHOP) is not None) is valid
    assert all(len(one) < 300 for one in found.problems(SHOP))


def test_the_last_valid_annotation_stays_until_it_is_removed() -> None:
    """A typing mistake does not move a threshold back to the setting; a removal does."""
    found = annotated(("max-error-rate", "0.01"))
    for value, rate, problem in (("0,02", 0.01, True), ("0.02", 0.02, False)):
        found.learn(SHOP, [(SLO_PREFIX + "max-error-rate", value)])
        terms = found.of(SHOP)
        assert terms is not None
        assert terms.max_error_rate == rate
        assert bool(found.problems(SHOP)) is problem
        assert not problem or "0.01 stays in force" in found.problems(SHOP)[0]
    found.learn(SHOP, [])
    assert found.of(SHOP) is None


def test_the_services_file_takes_precedence_over_annotations() -> None:
    """For each objective by itself."""
    base = fixed(max_error_rate=0.03, autonomy=Autonomy.ASK)
    terms = annotated(("max-error-rate", "0.5"), ("max-p95-latency-ms", "300"), base=base).of(SHOP)
    assert terms == replace(
        ServiceTerms(key=SHOP), max_error_rate=0.03, max_p95_latency_ms=300.0, autonomy=Autonomy.ASK
    )


async def test_annotations_of_a_workload_are_in_force_once_it_was_looked_at(tmp_path: Path) -> None:
    """Intake judges by them until it is gone; one that is not valid is recorded with the incident."""
    marks = {SLO_PREFIX + "max-error-rate": "0.05", SLO_PREFIX + "min-request-rate": "few"}
    async with story(tmp_path, slo_max_error_rate=0.9) as stage:
        stage.deploy(annotations=marks)
        await stage.live(60)
        assert stage.agent.slo.of(KEY).max_error_rate == 0.05
        stage.world.release("prod", KEY.service, "shop:2-errors")
        record = await stage.live_until(lambda record: record.incident.diagnosis is not None)
        assert "'few' is not a number above 0" in messages(record.timeline)
        stage.world.delete_deployment("prod", KEY.service)
        await stage.watcher.look(KEY)
        assert stage.agent.slo.of(KEY).max_error_rate == 0.9
