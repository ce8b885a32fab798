"""The contract of limits with several clusters: each has budgets and a circuit breaker of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from msgspec import structs

from app.agent.guardrails.circuit_breaker import Breaker
from app.agent.guardrails.limits import Budget, Limits
from app.agent.guardrails.limits.clusters import Clusters
from app.agent.guardrails.status import guardrail_status
from app.agent.ids import ServiceKey
from app.agent.models import IncidentState, Intent, KillSwitch
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.intents import Begun
from tests.contract.store_values import MINUTE, NOW, SNAPSHOT, claimed, intent, note, opened
from tests.contract.test_store_budgets import begin, diagnosis, ended, ready

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

CLUSTERS = Clusters(environments={"east": "east", "east-2": "east", "west": "west"})
TWICE = Breaker(failures=2, open_for=timedelta(hours=1))


def of(environment: str, service: str = "api") -> ServiceKey:
    return ServiceKey(environment=environment, service=service)


async def test_a_budget_of_a_cluster_counts_that_cluster_alone(store: Store) -> None:
    """Its environments share it; other clusters, the one without a name among them, do not."""
    limits = Limits(per_cluster=1, clusters=CLUSTERS)
    assert (await begin(store, *await ready(store, of("east")), limits)).begun is Begun.YES
    spent = await begin(store, *await ready(store, of("east-2")), limits)
    assert spent.reasons == (
        "the budget is exhausted: 1 of MAX_ACTIONS_PER_CLUSTER=1 in cluster east within 1 h",
    )
    assert (await begin(store, *await ready(store, of("west")), limits)).begun is Begun.YES
    assert (await begin(store, *await ready(store, of("prod")), limits)).begun is Begun.YES
    assert (await begin(store, *await ready(store, of("test")), limits)).begun is Begun.BUDGET_SPENT
    history = await store.budgets.recent_actions(of("east-2"), limits, NOW)
    assert [touch.key for touch in history.window] == [of("east")]


async def test_namespaces_of_one_name_in_two_clusters_have_two_budgets(store: Store) -> None:
    """They are two namespaces."""
    limits = Limits(per_namespace=1, clusters=CLUSTERS)
    assert (await begin(store, *await ready(store, of("east")), limits)).begun is Begun.YES
    assert (await begin(store, *await ready(store, of("west")), limits)).begun is Begun.YES
    spent = await begin(store, *await ready(store, of("east", "cart")), limits)
    assert "in namespace payments of cluster east" in spent.reasons[0]


async def test_the_share_of_the_fleet_is_that_of_the_cluster(store: Store) -> None:
    """Three services at least in each; what was acted on elsewhere does not count."""
    limits = Limits(fleet_share=0.5, clusters=CLUSTERS)
    for number in range(3):
        act = await ready(store, of("east", f"api-{number}"))
        assert (await begin(store, *act, limits, known=6)).begun is Begun.YES
    assert (await begin(store, *await ready(store, of("west")), limits, known=6)).begun is Begun.YES
    assert (await begin(store, *await ready(store, of("east")), limits, known=6)).begun is Begun.BUDGET_SPENT


async def test_the_breaker_of_a_cluster_opens_and_is_closed_alone(store: Store) -> None:
    """Two failures in one cluster leave the others free, and a person closes exactly that breaker."""
    limits = Limits(cluster_breaker=TWICE, clusters=CLUSTERS)
    for number in range(2):
        claim, act = await ready(store, of("east", f"api-{number}"))
        assert (await begin(store, claim, act, limits)).begun is Begun.YES
        await ended(store, claim, act, IncidentState.ESCALATED)
    held = await ready(store, of("east-2"))
    answer = await begin(store, *held, limits, NOW + MINUTE)
    assert "the circuit breaker of cluster east is open until" in answer.reasons[0]
    for environment in ("west", "prod"):
        began = await begin(store, *await ready(store, of(environment)), limits, NOW + MINUTE)
        assert began.begun is Begun.YES, began.reasons

    attempts = await store.budgets.attempts(NOW - MINUTE)
    status = guardrail_status(None, attempts, limits, NOW + MINUTE)
    assert [(one.key, one.in_words) for one in status.circuits] == [("east", "cluster east")]

    at = NOW + 2 * MINUTE
    said = KillSwitch(engaged=False, by="ann", reason="the registry is back", at=at)
    await store.guardrails.close_circuit("west", said)
    await store.guardrails.close_circuit(None, said)
    assert (await begin(store, *held, limits, at)).begun is Begun.BUDGET_SPENT
    await store.guardrails.close_circuit("east", said)
    closed = (await store.budgets.attempts(NOW)).closed
    assert closed == {"west": at, None: at, "east": at}
    assert (await begin(store, *held, limits, at)).begun is Begun.YES
    newest = (await store.audit_log.entries(after=-1, limit=10))[-1]
    assert newest.subject == "cluster east"


async def _alone(store: Store, environment: str, cluster: str) -> tuple[Claim, Intent, Budget]:
    incident = await opened(store, of(environment))
    claim, act = await claimed(store, incident), intent(incident)
    assert act.action.target is not None
    target = structs.replace(act.action.target, cluster=cluster)
    act = replace(act, action=replace(act.action, target=target))
    executing = replace(incident, state=IncidentState.EXECUTING, diagnosis=diagnosis())
    await store.intents.add(claim, executing, act, [note()])
    return claim, act, Budget(per_incident=5, limits=Limits(clusters=CLUSTERS), alone=True)


async def test_actions_one_at_a_time_are_one_at_a_time_in_each_cluster(store: Store) -> None:
    """Nodes are counted in one cluster; a cordon under way in another takes none of them."""
    first = await _alone(store, "east", "east")
    second = await _alone(store, "east-2", "east")
    other = await _alone(store, "west", "west")
    found = [
        (await store.intents.begin(claim, act.id, SNAPSHOT, budget, NOW)).begun
        for claim, act, budget in (first, second, other)
    ]
    assert found == [Begun.YES, Begun.BUDGET_SPENT, Begun.YES]
    record = await store.incidents.get(other[0].incident_id)
    assert record is not None
    assert record.intents[0].action.target == other[1].action.target, "the cluster is on record"
