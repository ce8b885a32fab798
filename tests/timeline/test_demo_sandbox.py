"""The demo as golden timelines: the entries, their order, and the moments of the story between them."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.agent.models import (
    ActionName,
    IncidentState,
    OutcomeKind,
    SliSample,
    Stage,
    TimelineEntry,
)
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.timeline import verify_chain
from app.agent.workload import WorkloadView
from app.cli.commands.demo_simulated import (
    Played,
    StoryPace,
    play,
    simulation_settings,
)
from app.cli.commands.errors import CommandFailed
from app.config import Settings
from app.sandbox.operations import FIELD_MANAGER
from app.sandbox.scenarios.story import BAD_RELEASE, Beat, ConfigUpdate, Scenario, TelemetryLoss
from app.store import open_store
from app.testing import Template, VirtualClock, Workload

AT_ONCE = StoryPace(wall_seconds_per_second=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """One entry that must appear between two moments of the story, in seconds."""

    after: float
    before: float
    stage: Stage | None
    """None for what happens in the world."""
    says: str
    """A regular expression found in it."""


class Listener:
    """Remembers the entries, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[datetime, Stage | None, str]] = []
        self.images: list[str] = []
        self.error_rates: list[float | None] = []

    def happened(self, at: datetime, text: str) -> None:
        self.told.append((at, None, text))

    def levels(self, at: datetime, sli: SliSample, workload: WorkloadView | None) -> None:
        assert workload is not None
        self.images.append(workload.revisions[0].images[0])
        self.error_rates.append(sli.error_rate)

    def entry(self, entry: TimelineEntry) -> None:
        self.told.append((entry.at, entry.stage, entry.message))


def must_tell(listener: Listener, wanted: Sequence[Want]) -> None:
    """Every want is met by an entry, each by a later one than the one before."""
    begun = listener.told[0][0]
    rest = iter(listener.told)
    for want in wanted:
        for at, stage, text in rest:
            seconds = (at - begun).total_seconds()
            if stage is want.stage and re.search(want.says, text) and want.after <= seconds <= want.before:
                break
        else:
            whole = "\n".join(f"{(at - begun).total_seconds():6.0f} {s} {t}" for at, s, t in listener.told)
            pytest.fail(f"the timeline lacks, in this order, {want}\n{whole}")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    runbooks = Path("runbooks").resolve()
    monkeypatch.chdir(tmp_path)
    return Settings(database_url=SecretStr(f"sqlite:///{tmp_path / 'heal.db'}"), runbooks_dir=runbooks)


async def told(
    settings: Settings, scenario: Scenario = BAD_RELEASE, *, dry_run: bool = False
) -> tuple[Listener, Played]:
    listener = Listener()
    wanted = simulation_settings(settings, dry_run=dry_run)
    return listener, await play(wanted, scenario, VirtualClock, listener, AT_ONCE)


async def test_a_bad_release_is_seen_rolled_back_and_proved_recovered(settings: Settings) -> None:
    """The whole story: healthy, released, failing, diagnosed, rolled back once, verified over the soak."""
    listener, played = await told(settings)
    must_tell(
        listener,
        [
            Want(after=0, before=0, stage=None, says="payments-api in sandbox: healthy"),
            Want(after=60, before=61, stage=None, says=r"releases payments-api 1\.15\.0"),
            Want(after=80, before=100, stage=Stage.OBSERVE, says="Opened by .*error rate"),
            Want(after=90, before=165, stage=Stage.OBSERVE, says="Evidence: .*revision 2"),
            Want(after=90, before=165, stage=Stage.DIAGNOSE, says="Most likely bad release"),
            Want(after=90, before=165, stage=Stage.PLAN, says="roll-back-bad-release@2: rollback"),
            Want(after=90, before=165, stage=Stage.POLICY, says="Rehearsal .*accepts rollback"),
            Want(after=90, before=165, stage=Stage.POLICY, says=r"rollback \(high risk\): allow"),
            Want(after=90, before=165, stage=Stage.EXECUTE, says="Starting: rollback"),
            Want(after=90, before=165, stage=Stage.EXECUTE, says="rollback done"),
            Want(after=90, before=165, stage=Stage.VERIFY, says="Verifying rollback"),
            Want(after=90, before=170, stage=Stage.VERIFY, says="Service unhealthy"),
            Want(after=115, before=200, stage=Stage.VERIFY, says="Service healthy"),
            Want(after=145, before=240, stage=Stage.VERIFY, says="Verdict: recovered"),
            Want(after=145, before=240, stage=Stage.LEARN, says="Closed: recovered"),
        ],
    )
    (record,) = played.incidents
    assert record.incident.state is IncidentState.RECOVERED
    assert not record.incident.dry_run
    assert record.incident.key.environment == "sandbox"
    assert verify_chain(record.incident.id, record.timeline)
    assert [entry.manager for entry in played.audit] == ["pipeline", FIELD_MANAGER]
    assert listener.images[0] == listener.images[-1]
    assert len(set(listener.images)) == 2


async def test_the_same_story_in_a_dry_run_changes_nothing(settings: Settings) -> None:
    """Proposed: the rollback is rehearsed and allowed, only the pipeline wrote, the fault stays."""
    listener, played = await told(settings, dry_run=True)
    must_tell(
        listener,
        [
            Want(after=90, before=165, stage=Stage.POLICY, says="Rehearsal .*accepts rollback"),
            Want(after=90, before=165, stage=Stage.EXECUTE, says="nothing was written"),
            Want(after=200, before=310, stage=Stage.VERIFY, says="Verdict: not recovered"),
            Want(after=200, before=310, stage=Stage.LEARN, says="Closed: proposed"),
        ],
    )
    (record,) = played.incidents
    assert record.incident.state is IncidentState.PROPOSED
    assert [i.outcome.kind for i in record.intents if i.outcome] == [OutcomeKind.REHEARSED]
    assert [entry.manager for entry in played.audit] == ["pipeline"]
    assert listener.images[-1].endswith("-errors")
    assert (listener.error_rates[-1] or 0) > 0.4


async def test_a_bad_config_is_reverted_and_the_release_stays(settings: Settings) -> None:
    """Without a change event: the change is found in the ConfigMap, and the last good data restored."""
    shop = Workload(
        namespace="sandbox",
        name="shop",
        service="shop",
        template=Template(image="registry.example/shop:2.0.0", config_maps=("shop-config",)),
    )
    scenario = Scenario(
        name="bad-config",
        title="A ConfigMap makes shop fail",
        namespace="sandbox",
        service="shop",
        workloads=(shop,),
        config_maps={"shop-config": {"FAIL_RATIO": "0", "MODE": "fast"}},
        beats=(
            Beat(
                at_seconds=60.0,
                says="Somebody edits shop-config.",
                happening=ConfigUpdate(config_map="shop-config", data={"FAIL_RATIO": "0.6", "MODE": "fast"}),
            ),
        ),
        limit_seconds=900.0,
    )
    listener, played = await told(settings, scenario)
    must_tell(
        listener,
        [
            Want(after=60, before=61, stage=None, says="Somebody edits"),
            Want(after=80, before=100, stage=Stage.OBSERVE, says="Opened by"),
            Want(after=85, before=170, stage=Stage.DIAGNOSE, says="Most likely bad config"),
            Want(after=85, before=170, stage=Stage.EXECUTE, says="revert config done"),
            Want(after=130, before=250, stage=Stage.LEARN, says="Closed: recovered"),
        ],
    )
    (record,) = played.incidents
    assert [i.action.name for i in record.intents] == [ActionName.REVERT_CONFIG]
    assert [(entry.manager, entry.kind) for entry in played.audit] == [
        ("pipeline", "ConfigMap"),
        (FIELD_MANAGER, "ConfigMap"),
    ]


async def test_losing_the_telemetry_opens_no_incident_and_heals_nothing(settings: Settings) -> None:
    """Every series vanishing at once is the monitoring's fault (promise 8)."""
    silent = replace(
        BAD_RELEASE,
        beats=(Beat(at_seconds=60.0, says="The monitoring goes blind.", happening=TelemetryLoss()),),
        limit_seconds=300.0,
    )
    with pytest.raises(CommandFailed, match="did not end"):
        await told(settings, silent)
    store = await open_store(settings.database_url.get_secret_value())
    page = await store.incidents.find(IncidentFilter(), limit=10, cursor=None)
    await store.close()
    assert page.items == ()


async def test_stories_played_in_a_row_do_not_touch_each_other(settings: Settings) -> None:
    """Each opens an incident of its own and ends the same way, however many there are."""
    _, dry = await told(settings, dry_run=True)
    stories = [(await told(settings))[1] for _ in range(3)]
    (first,) = dry.incidents
    assert first.incident.state is IncidentState.PROPOSED
    found = {first.incident.id}
    for story in stories:
        (record,) = story.incidents
        assert record.incident.state is IncidentState.RECOVERED
        found.add(record.incident.id)
    assert len(found) == 4


async def test_simulated_time_does_not_leave_the_simulation(settings: Settings, tmp_path: Path) -> None:
    """However often it is played: nothing that holds is dated after the moment it was written."""
    for _ in range(3):
        await told(settings)
    now = datetime.now(UTC)
    later = []
    with sqlite3.connect(tmp_path / "heal.db") as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            freed = " WHERE owner IS NOT NULL" if table == "claims" else ""
            for row in database.execute(f"SELECT * FROM {table}{freed}"):  # noqa: S608 - the schema's own names
                later += [
                    (table, text)
                    for text in re.findall(r"20\d\d-\d\d-\d\d[T ][\d:.]{8,15}", str(row))
                    if datetime.fromisoformat(text).replace(tzinfo=UTC) > now
                ]
    assert later == []


async def test_a_story_broken_off_leaves_no_open_incident(settings: Settings) -> None:
    """What cannot be healed any more is ended honestly, and the next story plays as ever."""
    with pytest.raises(CommandFailed, match="did not end"):
        await told(settings, replace(BAD_RELEASE, limit_seconds=95.0))
    store = await open_store(settings.database_url.get_secret_value())
    page = await store.incidents.find(IncidentFilter(), limit=10, cursor=None)
    assert await store.incidents.all_open() == ()
    await store.close()
    (record,) = page.items
    assert record.incident.state is IncidentState.ESCALATED
    assert "broken off" in record.incident.summary
    _, played = await told(settings)
    assert played.incidents[0].incident.state is IncidentState.RECOVERED


async def test_an_agent_on_the_same_database_does_not_take_the_story_over(settings: Settings) -> None:
    """From its opening to its end the incident is held: another owner's claim is refused throughout."""
    wanted = simulation_settings(settings, dry_run=False)
    slowly = StoryPace(wall_seconds_per_second=0.01)
    story = asyncio.create_task(play(wanted, BAD_RELEASE, VirtualClock, Listener(), slowly))
    other = await open_store(settings.database_url.get_secret_value())
    refused = 0
    while not story.done():
        for incident in await other.incidents.all_open():
            if (
                record := await other.incidents.get(incident.id)
            ) is None or record.incident.diagnosis is None:
                continue
            claim = await other.claims.take(incident.id, "embedded", timedelta(seconds=30), datetime.now(UTC))
            still_open = incident.id in {one.id for one in await other.incidents.all_open()}
            assert claim is None or not still_open
            refused += claim is None
        await asyncio.wait({story}, timeout=0.02)
    await other.close()
    assert refused > 0
    assert (await story).incidents[0].incident.state is IncidentState.RECOVERED
