"""Whatever a question holds, its document is as published, and the shipped policy agrees with settings."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from app.agent.guardrails.disruption import Disruption, DisruptionBudget
from app.agent.guardrails.document import document
from app.agent.guardrails.limits import (
    Excess,
    History,
    LimitName,
    Limits,
    LimitStatus,
    PastAction,
    Spending,
)
from app.agent.guardrails.question import Guardrails, Question
from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.models import (
    Action,
    ActionName,
    Cause,
    DecisionKind,
    Diagnosis,
    Hypothesis,
    Incident,
    IncidentState,
    KillSwitch,
    OutcomeKind,
    Plan,
    Rehearsal,
    Risk,
    Trigger,
)
from app.agent.policy import guard
from app.agent.workload import ObjectRef, TargetState
from app.connectors.policy.bundle import read_bundle, shipped_policies
from app.connectors.policy.engine import Compiled, compile_bundle, input_text
from tests.contract.policy_cases import base_document, cases

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "policy-input.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=FormatChecker())

texts = st.text(max_size=12)
maybe_texts = st.none() | texts
counts = st.integers(min_value=0, max_value=10**6)
confidences = st.floats(min_value=0, max_value=1)
moments = st.integers(0, 7 * 10**9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
refs = st.builds(ObjectRef, kind=texts, namespace=texts, name=texts)
keys = st.builds(ServiceKey, environment=texts, service=texts)
scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | texts | st.floats(-1e9, 1e9)
hypotheses = st.builds(
    Hypothesis,
    cause=st.sampled_from(Cause),
    confidence=confidences,
    rule=texts,
    evidence_for=st.lists(texts, max_size=2).map(tuple),
    evidence_against=st.lists(texts, max_size=2).map(tuple),
)
actions = st.builds(
    Action,
    name=st.sampled_from(ActionName),
    risk=st.sampled_from(Risk),
    target=st.none() | refs,
    parameters=st.dictionaries(texts, scalars, max_size=3),
    expected_effect=texts,
    undo=maybe_texts,
    diagnosed_token=maybe_texts,
    leaves=maybe_texts,
    reaches=maybe_texts,
)
incidents = st.builds(
    Incident,
    id=texts.map(IncidentId),
    key=keys,
    state=st.sampled_from(IncidentState),
    opened_at=moments,
    triggers=st.lists(st.sampled_from(Trigger), max_size=3).map(tuple),
    stale=st.booleans(),
    dry_run=st.booleans(),
    diagnosis=st.none()
    | st.builds(Diagnosis, hypotheses=st.lists(hypotheses, min_size=1, max_size=3).map(tuple), at=moments),
    next_action=counts,
    joined=counts,
)
pasts = st.builds(
    PastAction,
    intent_id=texts.map(IntentId),
    incident_id=texts.map(IncidentId),
    key=keys,
    namespace=texts,
    action=st.sampled_from(ActionName),
    target=refs,
    parameters=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
    plan_hash=texts,
    cause=st.none() | st.sampled_from(Cause),
    evidence=maybe_texts,
    began_at=moments,
    outcome=st.none() | st.sampled_from(OutcomeKind),
    helped=st.none() | st.booleans(),
    undoes=st.none() | texts.map(IntentId),
)
standings = st.builds(
    LimitStatus,
    history=st.builds(History, service=st.lists(pasts, max_size=3).map(tuple)),
    spending=st.lists(
        st.builds(Spending, limit=st.sampled_from(LimitName), spent=counts, allowed=st.none() | counts),
        max_size=3,
    ).map(tuple),
    exceeded=st.lists(st.builds(Excess, limit=st.sampled_from(LimitName), reason=texts), max_size=2).map(
        tuple
    ),
)
disruptions = st.builds(
    Disruption,
    replicas=counts,
    missing_at_once=counts,
    budgets=st.lists(
        st.builds(DisruptionBudget, name=texts, expected_pods=counts, desired_healthy=counts), max_size=2
    ).map(tuple),
    unread=maybe_texts,
)
questions = st.builds(
    Question,
    incident=incidents,
    plan=st.builds(
        Plan,
        runbook=maybe_texts,
        runbook_hash=maybe_texts,
        actions=st.lists(actions, max_size=2).map(tuple),
        rejected=st.just(()),
        hash=texts,
        at=moments,
    ),
    action=actions,
    target=st.none()
    | st.builds(
        TargetState, ref=refs, uid=texts, resource_version=texts, token=texts, changed_by=maybe_texts
    ),
    target_problem=maybe_texts,
    rehearsal=st.none() | st.builds(Rehearsal, accepted=st.booleans(), message=texts),
    taken=counts,
    at=moments,
    brake=st.none() | st.builds(KillSwitch, engaged=st.booleans(), by=texts, reason=texts, at=moments),
    standing=standings,
    disruption=st.none() | disruptions,
)
guardrails = st.builds(
    Guardrails,
    enabled_actions=st.frozensets(st.sampled_from(ActionName)),
    allow_high_risk=st.booleans(),
    max_actions_per_incident=st.integers(0, 20),
    approval_for=st.frozensets(st.sampled_from(Risk)),
    shared=st.builds(Limits, window=st.timedeltas(timedelta(0), timedelta(days=9))),
    max_replica_share=st.floats(0.01, 1),
)


@cache
def shipped() -> Compiled:
    """The shipped policies, on the thread of the tests, and kept: no other thread may drop the engine."""
    compiled, problems = compile_bundle(read_bundle(shipped_policies()).without_tests())
    assert compiled is not None, problems
    return compiled


def test_the_schema_is_a_schema() -> None:
    """And describes every field it has."""
    Draft202012Validator.check_schema(SCHEMA)


@given(question=questions, limits=guardrails)
def test_every_document_is_as_published(question: Question, limits: Guardrails) -> None:
    """Form and version, for any question at all."""
    asked = document(question, limits)
    errors = [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(asked)]
    assert errors == []
    assert json.loads(input_text(asked)) == asked


@given(question=questions, limits=guardrails)
def test_the_shipped_policy_repeats_no_guardrail(question: Question, limits: Guardrails) -> None:
    """It allows any question that an agent can ask; what the guardrails deny stays denied without it."""
    value = shipped().value("data.heal.decision", input_text(document(question, limits)))
    assert value is not None
    decided = json.loads(value)
    assert (decided["decision"], decided["rules"]) == (DecisionKind.ALLOW, ["nothing_against"])
    assert set(decided["reasons"]).isdisjoint(guard(question, limits))


def test_the_documents_of_the_cases_are_as_published() -> None:
    """The base of every case, so that they try what an agent really sends."""
    assert [error.message for error in VALIDATOR.iter_errors(base_document())] == []
    assert sum(VALIDATOR.is_valid(case.document) for case in cases()) >= 60
