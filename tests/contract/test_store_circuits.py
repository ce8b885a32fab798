"""The contract of the circuit breakers: asked where an action begins, of what is on record."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from app.agent.guardrails.circuit_breaker import Breaker
from app.agent.guardrails.limits import Limits
from app.agent.models import IncidentState, KillSwitch
from app.agent.ports.store import Store
from app.agent.ports.store.intents import Begun
from app.errors import Invalid
from app.store import open_store
from tests.contract.store_values import (
    MINUTE,
    NOW,
    claimed,
    closed,
    decided,
    intent,
    key,
    loaded,
    note,
    opened,
    outcome,
    recovered_after,
)
from tests.contract.test_store_budgets import begin, ended, ready

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

HOUR = timedelta(hours=1)
TWICE = Breaker(failures=2, open_for=HOUR)
SERVICE = Limits(service_breaker=TWICE)
CLUSTER = Limits(cluster_breaker=TWICE)


async def failed(store: Store, number: int, limits: Limits, minutes: int = 0) -> None:
    """Actions on a service that do not help."""
    claim, act = await ready(store, key(number))
    assert (await begin(store, claim, act, limits, NOW + minutes * MINUTE)).begun is Begun.YES
    await ended(store, claim, act, IncidentState.ESCALATED)


async def test_a_service_that_was_acted_on_without_success_is_left_alone(store: Store) -> None:
    """Two failures in a row open its breaker; other services are not concerned."""
    await failed(store, 1, SERVICE)
    await failed(store, 1, SERVICE, minutes=1)
    answer = await begin(store, *await ready(store, key(1)), SERVICE, NOW + HOUR)
    assert answer.begun is Begun.BUDGET_SPENT
    assert answer.reasons == (
        "the circuit breaker of service-1 in prod is open until 2026-03-01 13:01:00 UTC: "
        "the last 2 actions did not help",
    )
    assert (await begin(store, *await ready(store, key(2)), SERVICE, NOW + HOUR)).begun is Begun.YES


async def test_the_cluster_is_left_alone_after_failures_anywhere(store: Store) -> None:
    """Each on a service of its own."""
    await failed(store, 1, CLUSTER)
    await failed(store, 2, CLUSTER)
    answer = await begin(store, *await ready(store, key(3)), CLUSTER, NOW + MINUTE)
    assert answer.begun is Begun.BUDGET_SPENT
    assert "the circuit breaker of the cluster is open until 2026-03-01 13:00:00 UTC" in answer.reasons[0]


async def test_one_success_in_between_keeps_it_closed(store: Store) -> None:
    """In a row means in a row."""
    await failed(store, 1, CLUSTER)
    claim, act = await ready(store, key(2))
    assert (await begin(store, claim, act, CLUSTER, NOW + MINUTE)).begun is Begun.YES
    await ended(store, claim, act, IncidentState.RECOVERED)
    await failed(store, 3, CLUSTER, minutes=2)
    assert (await begin(store, *await ready(store, key(4)), CLUSTER, NOW + 3 * MINUTE)).begun is Begun.YES


@pytest.mark.parametrize(
    ("judged", "end", "helped"),
    [
        (1, IncidentState.RECOVERED, (False, True)),
        (0, IncidentState.RECOVERED, (True, True)),
        (0, IncidentState.ESCALATED, (True, True)),
        (1, IncidentState.RESOLVED_BY_HAND, (False, True)),
        (None, IncidentState.ESCALATED, (False, False)),
        (None, IncidentState.RECOVERED, (True, True)),
    ],
)
async def test_an_action_helped_if_the_recovery_was_verified_after_it(
    store: Store, judged: int | None, end: IncidentState, helped: tuple[bool, bool]
) -> None:
    """The verdict decides, not how the incident ended; an action before the one that helped did not.

    The verdict of an old record names no action.
    """
    incident = await opened(store, key(1))
    claim = await claimed(store, incident)
    acts = [intent(incident, number) for number in range(2)]
    for number, act in enumerate(acts):
        await decided(store, claim, [act])
        await begin(store, claim, act, SERVICE, NOW + number * MINUTE)
        await store.intents.finish(claim, act.id, outcome(), "uid/8", [])
    verdict = recovered_after(None if judged is None else acts[judged])
    after = await loaded(store, incident.id)
    await store.incidents.save(claim, closed(replace(after, verdict=verdict), end), [note("ended")])
    attempts = (await store.budgets.attempts(NOW - HOUR)).tried[key(1)]
    assert {one.intent_id: one.helped for one in attempts} == {
        act.id: each for act, each in zip(acts, helped, strict=True)
    }
    past = (await store.budgets.recent_actions(key(1), SERVICE, NOW + HOUR)).service
    assert tuple(one.helped for one in past) == helped


async def test_a_second_look_shows_what_changed_since_the_first(store: Store) -> None:
    """Each look sees the newest verdict, also of an incident that an earlier look showed."""
    await failed(store, 1, SERVICE)
    claim, act = await ready(store, key(2))
    await begin(store, claim, act, SERVICE, NOW)
    await store.intents.finish(claim, act.id, outcome(), "uid/8", [])

    async def shown() -> dict[str, list[bool | None]]:
        found = (await store.budgets.attempts(NOW - HOUR)).tried
        return {each.service: [one.helped for one in tried] for each, tried in found.items()}

    assert await shown() == {"service-1": [False], "service-2": [None]}
    after = await loaded(store, act.incident_id)
    ended_now = closed(replace(after, verdict=recovered_after(act)), IncidentState.ESCALATED)
    await store.incidents.save(claim, ended_now, [note("ended")])
    assert await shown() == {"service-1": [False], "service-2": [True]}
    assert await shown() == {"service-1": [False], "service-2": [True]}


async def test_of_many_workers_one_gets_the_trial(database_url: str) -> None:
    """Half-open: six ask at the same moment, over two stores; the others hear who is trying."""
    stores = [await open_store(database_url)]
    if not database_url.startswith("sqlite"):
        stores.append(await open_store(database_url))
    await failed(stores[0], 1, CLUSTER)
    await failed(stores[0], 2, CLUSTER)
    acts = [await ready(stores[0], key(number)) for number in range(3, 9)]
    at = NOW + HOUR
    try:
        answers = await asyncio.gather(
            *(begin(stores[n % len(stores)], *act, CLUSTER, at) for n, act in enumerate(acts))
        )
        begun = [act for act, answer in zip(acts, answers, strict=True) if answer.begun is Begun.YES]
        assert len(begun) == 1
        claim, act = begun[0]
        told = {answer.reasons for answer in answers if answer.begun is not Begun.YES}
        assert told == {
            (
                f"the circuit breaker of the cluster is half-open: {claim.incident_id} "
                "has an action in progress since 2026-03-01 13:00:00 UTC",
            )
        }
        await ended(stores[0], claim, act, IncidentState.RECOVERED)
        rest = [each for each in acts if each is not begun[0]]
        again = await asyncio.gather(*(begin(stores[0], *each, CLUSTER, at + MINUTE) for each in rest))
        assert {answer.begun for answer in again} == {Begun.YES}
    finally:
        for store in stores:
            await store.close()


async def test_a_trial_that_fails_opens_it_again_for_as_long(store: Store) -> None:
    """From the moment the trial began."""
    await failed(store, 1, CLUSTER)
    await failed(store, 2, CLUSTER)
    await failed(store, 3, CLUSTER, minutes=60)
    waiting = await ready(store, key(4))
    assert (await begin(store, *waiting, CLUSTER, NOW + 2 * HOUR - MINUTE)).begun is Begun.BUDGET_SPENT
    assert (await begin(store, *waiting, CLUSTER, NOW + 2 * HOUR)).begun is Begun.YES


async def test_it_survives_a_restart(database_url: str) -> None:
    """Its state is what is on record."""
    store = await open_store(database_url)
    await failed(store, 1, CLUSTER)
    await failed(store, 2, CLUSTER)
    await store.close()
    store = await open_store(database_url)
    answer = await begin(store, *await ready(store, key(3)), CLUSTER, NOW + MINUTE)
    await store.close()
    assert answer.begun is Begun.BUDGET_SPENT


async def test_what_was_undone_counts_as_failed_before_its_incident_ends(store: Store) -> None:
    """And the undo itself begins, though the breaker is open."""
    claim, act = await ready(store, key(1))
    limits = Limits(service_breaker=Breaker(failures=1, open_for=HOUR))
    assert (await begin(store, claim, act, limits)).begun is Begun.YES
    await store.intents.finish(claim, act.id, outcome(), "uid/8", [])
    record = await store.incidents.get(claim.incident_id)
    assert record is not None
    undo = intent(record.incident, 1, undoes=act.id)
    incident = await store.intents.add(claim, record.incident, undo, [note()])
    assert (await begin(store, claim, undo, limits)).begun is Begun.YES
    await store.intents.finish(claim, undo.id, outcome(), "uid/9", [])
    further = intent(incident, 2)
    await store.intents.add(claim, incident, further, [note()])
    answer = await begin(store, claim, further, limits, NOW + MINUTE)
    assert answer.begun is Begun.BUDGET_SPENT
    assert "the last action did not help" in answer.reasons[0]


async def test_trials_that_fail_one_after_another_never_close_it(store: Store) -> None:
    """Hours later the first failures still count, with every other memory switched off."""
    await failed(store, 1, CLUSTER)
    for hour in range(5):
        await failed(store, 2 + hour, CLUSTER, minutes=1 + 60 * hour)
    waiting = await ready(store, key(9))
    at = NOW + 4 * HOUR + 30 * MINUTE
    assert (await begin(store, *waiting, CLUSTER, at)).begun is Begun.BUDGET_SPENT


# ------------------------------------------------------------ closed by hand


async def test_a_breaker_that_a_person_closed_lets_actions_through(store: Store) -> None:
    """From that moment on, until as many failures in a row come after it."""
    await failed(store, 1, SERVICE)
    await failed(store, 1, SERVICE, minutes=1)
    waiting = await ready(store, key(1))
    assert (await begin(store, *waiting, SERVICE, NOW + 3 * MINUTE)).begun is Begun.BUDGET_SPENT
    await store.guardrails.close_circuit(None, said(2))
    await store.guardrails.close_circuit(key(2), said(2))
    assert (await begin(store, *waiting, SERVICE, NOW + 3 * MINUTE)).begun is Begun.BUDGET_SPENT
    await store.guardrails.close_circuit(key(1), said(2))
    assert (await begin(store, *waiting, SERVICE, NOW + 3 * MINUTE)).begun is Begun.YES
    await ended(store, *waiting, IncidentState.ESCALATED)
    await failed(store, 1, SERVICE, minutes=4)
    assert (
        await begin(store, *await ready(store, key(1)), SERVICE, NOW + 5 * MINUTE)
    ).begun is Begun.BUDGET_SPENT


async def test_the_clusters_breaker_is_closed_by_hand_as_well(store: Store) -> None:
    """Again and again, if need be; the last time counts."""
    await store.guardrails.close_circuit(None, said(0))
    await failed(store, 1, CLUSTER, minutes=1)
    await failed(store, 2, CLUSTER, minutes=2)
    waiting = await ready(store, key(3))
    assert (await begin(store, *waiting, CLUSTER, NOW + 4 * MINUTE)).begun is Begun.BUDGET_SPENT
    await store.guardrails.close_circuit(None, said(3))
    assert (await begin(store, *waiting, CLUSTER, NOW + 4 * MINUTE)).begun is Begun.YES


async def test_the_person_who_closes_it_is_named(store: Store) -> None:
    """Without a name nothing changes."""
    await failed(store, 1, SERVICE)
    with pytest.raises(Invalid):
        await store.guardrails.close_circuit(key(1), KillSwitch(engaged=False, by=" ", reason="x", at=NOW))
    assert (await store.budgets.attempts(NOW - HOUR)).closed == {}


async def test_what_was_tried_is_reported_by_service(store: Store) -> None:
    """With what came of it, and what people closed; older attempts are left out."""
    await failed(store, 1, SERVICE)
    claim, act = await ready(store, key(2))
    await begin(store, claim, act, SERVICE, NOW + MINUTE)
    await store.guardrails.close_circuit(key(1), said(2))
    found = await store.budgets.attempts(NOW - MINUTE)
    assert {name: [one.helped for one in tried] for name, tried in found.tried.items()} == {
        key(1): [False],
        key(2): [None],
    }
    assert found.closed == {key(1): NOW + 2 * MINUTE}
    assert set((await store.budgets.attempts(NOW)).tried) == {key(2)}


def said(minutes: int) -> KillSwitch:
    return KillSwitch(engaged=False, by="ann", reason="the registry is back", at=NOW + minutes * MINUTE)
