"""Releases as pipelines report them: each one once, at its first report, and which failures still stand."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from app.agent.evidence.releases import (
    change_of,
    once,
    releases,
    standing_failures,
)
from app.agent.ids import ServiceKey
from app.agent.models import (
    Change,
    Deploy,
    DeployStatus,
    Signal,
)
from tests.unit.scenes import CALLER, KEY, at, signal

STARTED, SUCCEEDED = DeployStatus.STARTED, DeployStatus.SUCCEEDED
FAILED, CANCELLED = DeployStatus.FAILED, DeployStatus.CANCELLED


def report(
    version: str,
    minutes: float,
    status: DeployStatus = SUCCEEDED,
    *,
    key: ServiceKey = KEY,
    commit: str | None = None,
) -> Change:
    return change_of(key, Deploy(version=version, status=status, commit_sha=commit), at(minutes))


def seen(reports: Sequence[Change]) -> list[tuple[str | None, float]]:
    """Version and minute of each release that finished or is under way."""
    return [
        (c.version, (c.at - at(0)).total_seconds() / 60)
        for c in releases(reports)
        if c.status is not CANCELLED
    ]


def test_a_release_that_is_reported_again_is_one_change_at_its_first_report() -> None:
    """However often the health of an application flaps."""
    told = [report("1.15.0", minutes) for minutes in (-180, -95, -3)]
    assert seen(told) == [("1.15.0", -180)]
    assert seen(told[2:]) == [("1.15.0", -3)]


def test_a_version_that_was_replaced_and_comes_back_is_a_new_release() -> None:
    """It was rolled back in between, and released again."""
    told = [report("1.15.0", -180), report("1.14.0", -60), report("1.15.0", -3), report("1.15.0", -1)]
    assert seen(told) == [("1.15.0", -180), ("1.14.0", -60), ("1.15.0", -3)]


def test_a_cancelled_deploy_did_not_finish_and_replaces_nothing() -> None:
    """What ran before it is still the release of before."""
    told = [report("1", -180), report("2", -9, STARTED), report("2", -8, CANCELLED), report("1", -3)]
    assert seen(told) == [("1", -180)]
    assert seen([report("1", -180), report("2", -9, CANCELLED), report("1", -3)]) == [("1", -180)]


def test_start_and_end_of_a_deploy_are_one_release_that_began_with_its_start() -> None:
    """Its status is the last one."""
    (found,) = releases([report("2", -3, STARTED), report("2", -1, FAILED)])
    assert (found.at, found.status, found.summary) == (at(-3), FAILED, "deploy of 2 failed")


def test_one_version_built_from_two_commits_is_two_releases() -> None:
    """A tag that was moved; a report without a commit is not held against either."""
    assert seen([report("latest", -60, commit="a"), report("latest", -3, commit="b")]) == [
        ("latest", -60),
        ("latest", -3),
    ]
    assert seen([report("1", -60, commit="a"), report("1", -3)]) == [("1", -60)]


def test_one_service_says_nothing_about_another() -> None:
    """The same version of two services is two releases."""
    assert len(releases([report("1", -60), report("1", -3, key=CALLER)])) == 2


def test_releases_last_reported_long_ago_are_left_out() -> None:
    """One that is reported again stays, at its first report."""
    told = [report("1", -600), report("2", -500), report("2", -5)]
    assert [(c.version, c.at) for c in once(told, since=at(-60))] == [("2", at(-500))]


@given(
    st.permutations(
        [
            report("1", -90),
            report("2", -60, STARTED),
            report("2", -59, FAILED),
            report("2", -40),
            report("1", -20),
            report("1", -5),
        ]
    )
)
def test_the_order_of_arrival_does_not_matter(told: list[Change]) -> None:
    """Reports are late, repeated and out of order."""
    assert seen(told) == [("1", -90), ("2", -60), ("1", -20)]


def deploy(version: str, minutes: float, status: DeployStatus) -> Signal:
    return signal(Deploy(version=version, status=status), minutes)


def test_a_failure_stands_until_a_later_success() -> None:
    """Of the same version, which was retried, or of another one, in any order of reports."""
    failed = deploy("1.15.0", -4, FAILED)
    assert standing_failures([failed]) == (failed,)
    for version in ("1.15.0", "1.15.1", "1.14.0"):
        later = deploy(version, -1, SUCCEEDED)
        assert standing_failures([failed, later]) == ()
        assert standing_failures([later, failed]) == ()
    assert standing_failures([failed], [report("1.15.0", -1)]) == ()


def test_only_a_later_success_ends_a_failure() -> None:
    """Not one from before, not a retry under way, not one that was cancelled, not another service's."""
    failed = deploy("1.15.0", -4, FAILED)
    for other in (
        deploy("1.15.0", -6, SUCCEEDED),
        deploy("1.15.0", -1, STARTED),
        deploy("1.15.0", -1, CANCELLED),
    ):
        assert standing_failures([failed, other]) == (failed,)
    assert standing_failures([failed], [report("1.15.0", -1, key=CALLER)]) == (failed,)
