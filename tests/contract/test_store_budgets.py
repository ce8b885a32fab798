"""The contract of the limits that all incidents share: counted where an action begins, on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import text

from app.agent.guardrails.limits import (
    Budget,
    LimitName,
    Limits,
    exceeded,
    proposed_by,
)
from app.agent.ids import IntentId, ServiceKey
from app.agent.models import (
    ActionName,
    Cause,
    Diagnosis,
    Hypothesis,
    Incident,
    IncidentState,
    Intent,
    OutcomeKind,
)
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.intents import Beginning, Begun
from app.agent.workload import ObjectRef
from app.store import open_store
from app.store.database.migrate import migration_config
from tests.contract.store_values import (
    MINUTE,
    NOW,
    SNAPSHOT,
    claimed,
    closed,
    intent,
    key,
    note,
    opened,
    outcome,
    recovered_after,
)
from tests.contract.test_store_database import engine_of

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

HOUR = timedelta(hours=1)


def diagnosis(cause: Cause = Cause.BAD_RELEASE, fingerprint: str | None = "seen") -> Diagnosis:
    best = Hypothesis(cause=cause, confidence=0.9, rule="a rule", evidence_for=("it looks so",))
    return Diagnosis(hypotheses=(best,), at=NOW, fingerprint=fingerprint)


async def ready(
    store: Store, of: ServiceKey, *, at: datetime = NOW, cause: Cause = Cause.BAD_RELEASE
) -> tuple[Claim, Intent]:
    """An incident of a service with a decided action."""
    incident = await opened(store, of, at=at)
    claim = await claimed(store, incident, at=at)
    act = intent(incident)
    executing = replace(incident, state=IncidentState.EXECUTING, diagnosis=diagnosis(cause))
    await store.intents.add(claim, executing, act, [note()])
    return claim, act


async def begin(
    store: Store, claim: Claim, act: Intent, limits: Limits, at: datetime = NOW, known: int | None = None
) -> Beginning:
    budget = Budget(per_incident=5, limits=limits, known_services=known)
    return await store.intents.begin(claim, act.id, SNAPSHOT, budget, at)


async def ended(
    store: Store, claim: Claim, act: Intent, end: IncidentState, kind: OutcomeKind = OutcomeKind.DONE
) -> None:
    """The action took its course, and the incident its end; a recovery was verified after it."""
    await store.intents.finish(claim, act.id, outcome(kind), "uid/8", [])
    record = await store.incidents.get(claim.incident_id)
    assert record is not None
    verdict = recovered_after(act) if end is IncidentState.RECOVERED else None
    await store.incidents.save(claim, closed(replace(record.incident, verdict=verdict), end), [note("ended")])


async def test_concurrent_begins_of_many_incidents_stay_within_one_budget(store: Store) -> None:
    """Eight workers, eight services, a budget of three: exactly three begin, and the others hear why."""
    acts = [await ready(store, key(number)) for number in range(8)]
    answers = await asyncio.gather(*(begin(store, *each, Limits(per_cluster=3)) for each in acts))
    assert sorted(a.begun for a in answers) == [Begun.BUDGET_SPENT] * 5 + [Begun.YES] * 3
    for answer in answers:
        if answer.begun is Begun.BUDGET_SPENT:
            assert answer.reasons == (
                "the budget is exhausted: 3 of MAX_ACTIONS_PER_CLUSTER=3 in the cluster within 1 h",
            )


async def test_several_stores_share_one_budget(postgres_url: str) -> None:
    """As several workers have them: what one process counts, the others count too."""
    stores = [await open_store(postgres_url) for _ in range(4)]
    acts = [await ready(stores[0], key(number)) for number in range(8)]
    try:
        answers = await asyncio.gather(
            *(begin(stores[n % 4], *each, Limits(per_namespace=3)) for n, each in enumerate(acts))
        )
    finally:
        for each_store in stores:
            await each_store.close()
    assert [a.begun for a in answers].count(Begun.YES) == 3


async def test_a_budget_survives_a_restart(database_url: str) -> None:
    """What began is in the rows, and nowhere else."""
    store = await open_store(database_url)
    claim, act = await ready(store, key(1))
    assert (await begin(store, claim, act, Limits(per_cluster=1))).begun is Begun.YES
    await store.close()
    store = await open_store(database_url)
    answer = await begin(store, *await ready(store, key(2)), Limits(per_cluster=1), NOW + HOUR - MINUTE)
    later = await begin(store, *await ready(store, key(3)), Limits(per_cluster=1), NOW + HOUR)
    await store.close()
    assert (answer.begun, later.begun) == (Begun.BUDGET_SPENT, Begun.YES)


async def test_a_second_attempt_counts_once(store: Store) -> None:
    """Retrying an intent spends nothing more."""
    limits = Limits(per_cluster=2)
    claim, act = await ready(store, key(1))
    assert (await begin(store, claim, act, limits)).begun is Begun.YES
    assert await store.intents.retry(claim, act.id, 5, NOW + MINUTE) is Begun.YES
    assert await store.intents.retry(claim, act.id, 5, NOW + MINUTE) is Begun.YES
    assert (await begin(store, *await ready(store, key(2)), limits)).begun is Begun.YES
    assert (await begin(store, *await ready(store, key(3)), limits)).begun is Begun.BUDGET_SPENT


async def test_an_undo_neither_needs_nor_spends_a_budget(store: Store) -> None:
    """With every budget at nothing an undo begins, and leaves room for the next action."""
    claim, act = await ready(store, key(1))
    assert (await begin(store, claim, act, Limits(per_cluster=1))).begun is Begun.YES
    await store.intents.finish(claim, act.id, outcome(), "uid/8", [])
    record = await store.incidents.get(claim.incident_id)
    assert record is not None
    undo = intent(record.incident, 1, undoes=act.id)
    await store.intents.add(claim, record.incident, undo, [note()])
    nothing = Limits(per_service=0, per_namespace=0, per_cluster=0, cooldown=HOUR)
    assert (await begin(store, claim, undo, nothing)).begun is Begun.YES
    assert (await begin(store, *await ready(store, key(2)), Limits(per_cluster=2))).begun is Begun.YES


async def test_a_clock_that_jumps_back_makes_no_room(store: Store) -> None:
    """What a peer's clock, ahead by an hour, recorded counts for one that is behind by two."""
    limits = Limits(per_cluster=1, window=MINUTE)
    assert (await begin(store, *await ready(store, key(1)), limits, NOW + HOUR)).begun is Begun.YES
    answer = await begin(store, *await ready(store, key(2)), limits, NOW - 2 * HOUR)
    assert answer.begun is Begun.BUDGET_SPENT


async def test_a_share_of_the_fleet_is_kept_to(store: Store) -> None:
    """Of eight services four may be acted on; the same one again is none more."""
    limits = Limits(fleet_share=0.5)
    for number in range(4):
        claim, act = await ready(store, key(number))
        assert (await begin(store, claim, act, limits, known=8)).begun is Begun.YES
    await ended(store, claim, act, IncidentState.RECOVERED)
    fifth = await ready(store, key(5))
    refused = await begin(store, *fifth, limits, known=8)
    assert refused.begun is Begun.BUDGET_SPENT
    assert "MAX_FLEET_SHARE=0.5 allows 4" in refused.reasons[0]
    assert (await begin(store, *await ready(store, key(3)), limits, known=8)).begun is Begun.YES
    assert (await begin(store, *fifth, limits, known=10)).begun is Begun.YES


async def test_a_service_cools_down_and_backs_off_by_what_is_on_record(store: Store) -> None:
    """Another incident of the same service and cause waits; another service does not."""
    limits = Limits(cooldown=5 * MINUTE, backoff_base=10 * MINUTE, backoff_max=HOUR)
    claim, act = await ready(store, key(1))
    assert (await begin(store, claim, act, limits)).begun is Begun.YES
    await ended(store, claim, act, IncidentState.ESCALATED)
    again = await ready(store, key(1))
    cooling = await begin(store, *again, limits, NOW + 4 * MINUTE)
    backing_off = await begin(store, *again, limits, NOW + 9 * MINUTE)
    assert (cooling.begun, backing_off.begun) == (Begun.BUDGET_SPENT, Begun.BUDGET_SPENT)
    assert "is in cooldown until 2026-03-01 12:05:00" in cooling.reasons[0]
    assert backing_off.reasons == (
        "the last action on service-1 in prod for bad release did not help: "
        "backoff until 2026-03-01 12:10:00 UTC",
    )
    assert (await begin(store, *await ready(store, key(2)), limits, NOW + MINUTE)).begun is Begun.YES
    assert (await begin(store, *again, limits, NOW + 10 * MINUTE)).begun is Begun.YES


async def test_what_did_not_help_is_not_repeated_on_the_same_evidence(store: Store) -> None:
    """Promise 10 over incidents: the same action, the same fingerprint; after a restart as well."""
    limits = Limits(memory=24 * HOUR)
    claim, act = await ready(store, key(1))
    assert (await begin(store, claim, act, limits)).begun is Begun.YES
    await ended(store, claim, act, IncidentState.ESCALATED)
    answer = await begin(store, *await ready(store, key(1)), limits, NOW + HOUR)
    assert answer.begun is Begun.BUDGET_SPENT
    assert f"on the same evidence ({claim.incident_id}) and did not help" in answer.reasons[0]


async def test_what_helped_may_be_done_again(store: Store) -> None:
    """A recovery is no reason to wait, or to refuse the same next time."""
    limits = Limits(memory=24 * HOUR, backoff_base=HOUR, backoff_max=HOUR)
    claim, act = await ready(store, key(1))
    assert (await begin(store, claim, act, limits)).begun is Begun.YES
    await ended(store, claim, act, IncidentState.RECOVERED)
    assert (await begin(store, *await ready(store, key(1)), limits, NOW + MINUTE)).begun is Begun.YES


async def test_policy_and_store_ask_the_same_of_the_same_rows(store: Store) -> None:
    """The decision says already what beginning would say."""
    limits = Limits(per_service=1)
    claim, act = await ready(store, key(1))
    await begin(store, claim, act, limits)
    await ended(store, claim, act, IncidentState.RECOVERED)
    claim, act = await ready(store, key(1))
    record = await store.incidents.get(claim.incident_id)
    assert record is not None
    history = await store.budgets.recent_actions(key(1), limits, NOW)
    early = exceeded(proposed_by(record.incident, "abc", act.action), history, limits, None, NOW)
    late = await begin(store, claim, act, limits)
    assert [each.limit for each in early] == [LimitName.SERVICE]
    assert late.reasons == tuple(each.reason for each in early)


async def test_no_action_gets_credit_for_a_recovery_after_the_escalation(store: Store) -> None:
    """What did not help still did not, for the circuit breakers and for a repetition (promise 10)."""
    claim, act = await ready(store, key(1))
    await begin(store, claim, act, Limits())
    await ended(store, claim, act, IncidentState.ESCALATED)
    record = await store.incidents.get(claim.incident_id)
    assert record is not None
    after = replace(record.incident, state=IncidentState.RECOVERED, recovered_at=NOW + 2 * MINUTE)
    assert await store.incidents.recover(after, note())
    [past] = (await store.budgets.recent_actions(key(1), Limits(), NOW)).service
    assert (past.outcome, past.helped) == (OutcomeKind.DONE, False)
    [tried] = (await store.budgets.attempts(NOW - MINUTE)).tried[key(1)]
    assert tried.helped is False


async def test_what_a_program_of_the_version_before_began_counts(database_url: str) -> None:
    """It writes rows without saying whom they concern; the database itself completes them."""
    store = await open_store(database_url)
    claim, act = await ready(store, key(1))
    incident = await opened(store, key(2))
    with engine_of(database_url).begin() as connection:
        connection.execute(
            text(
                "INSERT INTO intents (id, incident_id, sequence, state, dry_run, started_at, attempts, body)"
                " SELECT 'int_old', :incident, 0, 'executing', dry_run, :at, 1, body FROM intents"
            ),
            {"incident": incident.id, "at": _stored(database_url, NOW)},
        )
    answer = await begin(store, claim, act, Limits(per_namespace=1))
    history = await store.budgets.recent_actions(key(2), Limits(), NOW)
    await store.close()
    assert answer.begun is Begun.BUDGET_SPENT
    [past] = history.service
    assert (past.intent_id, past.key, past.namespace) == (IntentId("int_old"), key(2), "payments")
    assert past.evidence is None


async def test_an_action_on_a_node_spends_the_budget_of_the_namespace_it_serves(store: Store) -> None:
    """A node has no namespace: the parameter of the action says whose budget it is."""
    node = ObjectRef(kind="Node", namespace="", name="node-9")
    answers = []
    for number, namespace in enumerate(("payments", "payments", "search")):
        incident = await opened(store, key(number))
        claim, act = await claimed(store, incident), intent(incident)
        cordon = replace(act.action, name=ActionName.CORDON, target=node, parameters={"namespace": namespace})
        act = replace(act, action=cordon)
        executing = replace(incident, state=IncidentState.EXECUTING, diagnosis=diagnosis())
        await store.intents.add(claim, executing, act, [note()])
        answers.append((await begin(store, claim, act, Limits(per_namespace=1))).begun)
    assert answers == [Begun.YES, Begun.BUDGET_SPENT, Begun.YES]


async def test_what_began_before_the_upgrade_counts(database_url: str) -> None:
    """A database of the version before is upgraded with its intents."""

    store = await open_store(database_url)
    claim, act = await ready(store, key(1), cause=Cause.MEMORY_LEAK)
    await begin(store, claim, act, Limits())
    await store.close()
    with engine_of(database_url).begin() as connection:
        command.downgrade(migration_config(connection), "0003")
    store = await open_store(database_url)
    [past] = (await store.budgets.recent_actions(key(1), Limits(), NOW)).service
    answer = await begin(store, *await ready(store, key(2)), Limits(per_cluster=1))
    await store.close()
    assert (past.cause, past.namespace, past.began_at) == (Cause.MEMORY_LEAK, "payments", NOW)
    assert answer.begun is Begun.BUDGET_SPENT


async def test_what_notifies_people_is_no_action_on_a_service(store: Store) -> None:
    """A notification has no target: no shared limit holds it back, and it spends none."""
    incident: Incident = await opened(store, key(1))
    claim = await claimed(store, incident)
    act = intent(incident)
    told = replace(act, action=replace(act.action, target=None))
    await store.intents.add(claim, replace(incident, state=IncidentState.EXECUTING), told, [note()])
    nothing = Limits(per_service=0, per_namespace=0, per_cluster=0)
    assert (await begin(store, claim, told, nothing)).begun is Begun.YES
    assert (await begin(store, *await ready(store, key(2)), Limits(per_cluster=1))).begun is Begun.YES


def _stored(database_url: str, at: datetime) -> object:
    return f"{at:%Y-%m-%d %H:%M:%S.%f}" if database_url.startswith("sqlite") else at


@pytest.mark.parametrize("share", [0.5, 1.0])
async def test_a_fleet_that_cannot_be_counted_is_small(store: Store, share: float) -> None:
    """Three services, or no limit where no share is set."""
    answers = [
        (await begin(store, *await ready(store, key(number)), Limits(fleet_share=share))).begun
        for number in range(4)
    ]
    assert answers.count(Begun.YES) == (3 if share < 1 else 4)


async def test_an_action_that_is_counted_in_the_cluster_begins_alone(store: Store) -> None:
    """Of eight at once one begins; the next one only after its outcome, whatever the limits."""
    budget = Budget(per_incident=5, alone=True)
    acts = [await ready(store, key(number)) for number in range(8)]
    answers = await asyncio.gather(
        *(store.intents.begin(claim, act.id, SNAPSHOT, budget, NOW) for claim, act in acts)
    )
    assert sorted(a.begun for a in answers) == [Begun.BUDGET_SPENT] * 7 + [Begun.YES]
    first = next(n for n, answer in enumerate(answers) if answer.begun is Begun.YES)
    claim, act = acts[first - 1]
    refused = await store.intents.begin(claim, act.id, SNAPSHOT, budget, NOW)
    assert refused.reasons == ("another rollback is under way",)
    await store.intents.finish(acts[first][0], acts[first][1].id, outcome(OutcomeKind.DONE), "uid/8", [])
    assert (await store.intents.begin(claim, act.id, SNAPSHOT, budget, NOW)).begun is Begun.YES


@pytest.mark.parametrize(
    ("first", "undone", "second", "expected"),
    [
        (ActionName.CORDON, None, ActionName.CORDON, Begun.BUDGET_SPENT),
        (ActionName.DRAIN_NODE, None, ActionName.CORDON, Begun.BUDGET_SPENT),
        (ActionName.CORDON, None, ActionName.DRAIN_NODE, Begun.BUDGET_SPENT),
        (ActionName.RESTORE, ActionName.UNCORDON, ActionName.CORDON, Begun.BUDGET_SPENT),
        (ActionName.RESTORE, ActionName.CORDON, ActionName.CORDON, Begun.YES),
        (ActionName.RESTORE, ActionName.CORDON, ActionName.RESTORE, Begun.YES),
    ],
)
async def test_no_cordon_begins_beside_another(
    store: Store, first: ActionName, undone: ActionName | None, second: ActionName, expected: Begun
) -> None:
    """A drain, and the undo of an uncordon, cordon a node as well; the undo of a cordon does not."""
    node = ObjectRef(kind="Node", namespace="", name="node-1")
    budget = Budget(per_incident=5, limits=Limits(), alone=True)
    begun = []
    for number, name in enumerate((first, second)):
        incident = await opened(store, key(number))
        claim = await claimed(store, incident)
        undoes = IntentId("int_undone") if name is ActionName.RESTORE else None
        act = intent(incident, undoes=undoes)
        act = replace(act, requested_by="ann" if number and undoes else None)
        reaches = "schedulable" if undone is ActionName.CORDON and number == 0 else "cordoned"
        act = replace(act, action=replace(act.action, name=name, target=node, reaches=reaches))
        await store.intents.add(claim, incident, act, [note()])
        begun.append((await store.intents.begin(claim, act.id, SNAPSHOT, budget, NOW)).begun)
    assert begun == [Begun.YES, expected]
