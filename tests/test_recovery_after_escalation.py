"""An escalated incident is watched, and ends when its service recovers by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from app.agent.identity.people import Person
from app.agent.models import Incident, IncidentRecord, IncidentState, Note, Stage
from app.agent.responders import recovery
from app.agent.responders.recovery import RecoveryWatch
from app.agent.responders.request import ResponderAct, ResponderRequest
from app.agent.timeline import verify_chain
from app.schemas import IncidentSummary
from tests.contract.store_values import claimed, closed, key, note, opened
from tests.stories import (
    ACTING,
    NAMESPACE,
    STEP_SECONDS,
    Story,
    innocent_release_beside_a_dying_dependency,
    story,
)


def watch(stage: Story) -> RecoveryWatch:
    return RecoveryWatch(
        store=stage.agent.store, verifier=stage.agent.loop.stages.verifier, clock=stage.clock
    )


async def live_beside(stage: Story, watching: RecoveryWatch, seconds: float) -> None:
    """Let time pass with a round of the watch at each step."""
    for _ in range(int(seconds / STEP_SECONDS)):
        await stage.live(STEP_SECONDS)
        await watching.round()


async def escalated(stage: Story) -> IncidentRecord:
    """The rollback did not help and was undone; the database that the service calls is still down."""
    stage.deploy()
    await stage.live(180)
    await innocent_release_beside_a_dying_dependency(stage)
    record = await stage.live_until_ended()
    assert record.incident.state is IncidentState.ESCALATED
    return record


async def test_an_escalated_incident_ends_when_its_service_recovers(tmp_path: Path) -> None:
    """Open until then; afterwards recovered, with the moment of recovery and what the agent did."""
    async with story(tmp_path, **ACTING) as stage:
        before = await escalated(stage)
        watching = watch(stage)
        await live_beside(stage, watching, 120)
        still = await stage.load(before.incident.id)
        assert still.incident == before.incident, "an unhealthy service changes nothing"
        assert IncidentSummary.of(still).closed_at is None
        stage.world.set_replicas(NAMESPACE, "db", 3)
        since = stage.clock.now()
        await live_beside(stage, watching, 240)
        after = await stage.load(before.incident.id)
        assert after.incident.state is IncidentState.RECOVERED
        assert after.incident.recovered_at is not None
        assert since < after.incident.recovered_at < after.timeline[-1].at
        assert IncidentSummary.of(after).closed_at == after.incident.recovered_at
        assert after.incident.closed_at == before.incident.closed_at, "the handover stays on record"
        said = f"Recovered at {after.incident.recovered_at:%Y-%m-%d %H:%M:%S} UTC"
        for words in (said, "The agent did nothing after the handover."):
            assert words in after.incident.summary
            assert words in after.timeline[-1].message
        assert len(after.timeline) == len(before.timeline) + 1, "one entry for the whole watch"
        assert verify_chain(after.incident.id, after.timeline)
        assert after.incident.lesson == before.incident.lesson, "the agent gets no credit"
        await live_beside(stage, watching, 60)
        assert await stage.load(before.incident.id) == after


async def test_a_service_that_fails_again_within_the_soak_has_not_recovered(tmp_path: Path) -> None:
    """The soak begins again; a restart of the process begins it again as well."""
    async with story(tmp_path, **ACTING) as stage:
        before = await escalated(stage)
        watching = watch(stage)
        for _ in range(3):
            stage.world.set_replicas(NAMESPACE, "db", 3)
            await live_beside(stage, watching, 50)
            stage.world.set_replicas(NAMESPACE, "db", 0)
            await live_beside(stage, watching, 60)
        assert (await stage.load(before.incident.id)).incident.state is IncidentState.ESCALATED
        stage.world.set_replicas(NAMESPACE, "db", 3)
        await live_beside(stage, watching, 40)
        await live_beside(stage, watch(stage), 40)
        assert (await stage.load(before.incident.id)).incident.state is IncidentState.ESCALATED


async def test_missing_data_is_no_recovery_and_a_person_comes_first(tmp_path: Path) -> None:
    """Without telemetry nothing ends; what a person resolved meanwhile is left alone."""
    async with story(tmp_path, **ACTING) as stage:
        before = await escalated(stage)
        stage.world.set_replicas(NAMESPACE, "db", 3)
        stage.world.lose_telemetry(*stage.world.services())
        watching = watch(stage)
        await live_beside(stage, watching, 300)
        assert (await stage.load(before.incident.id)).incident.state is IncidentState.ESCALATED
        stage.world.restore_telemetry()
        await live_beside(stage, watching, 30)
        loaded = (await stage.load(before.incident.id)).incident
        resolve = ResponderRequest(
            act=ResponderAct.RESOLVE, by=Person(name="ann"), at=stage.clock.now(), text="started the database"
        )
        await stage.agent.store.responders.respond(before.incident.id, resolve)
        ended = replace(loaded, state=IncidentState.RECOVERED, recovered_at=stage.clock.now())
        said = Note(at=stage.clock.now(), stage=Stage.LEARN, message="Closed: recovered.")
        assert not await stage.agent.store.incidents.recover(ended, said)
        await live_beside(stage, watching, 240)
        assert (await stage.load(before.incident.id)).incident.state is IncidentState.RESOLVED_BY_HAND


async def test_a_round_looks_at_a_bounded_number_of_incidents(tmp_path: Path) -> None:
    """Each of the escalated ones has its turn, and no round looks at all of them."""
    async with story(tmp_path, **ACTING) as stage:
        store, looked = stage.agent.store, list[str]()
        for number in range(60):
            incident = await opened(store, key(number))
            claim = await claimed(store, incident)
            await store.incidents.save(claim, closed(incident, IncidentState.ESCALATED), [note()])

        class Counting(RecoveryWatch):
            async def _look(self, incident: Incident) -> None:
                looked.append(incident.id)

        watching = Counting(store=store, verifier=stage.agent.loop.stages.verifier, clock=stage.clock)
        for _ in range(6):
            before = len(looked)
            await watching.round()
            assert len(looked) - before <= recovery.NEWEST_AT_ONCE + recovery.REST_AT_ONCE
        assert len(set(looked)) == 60
