"""What is kept of the logs of failing containers: patterns without secrets, values and lines."""

from __future__ import annotations

from dataclasses import replace
from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.diagnosis import diagnose
from app.agent.evidence.cluster.log_patterns import (
    LogSource,
    log_sources,
    masked,
    pattern_facts,
    patterns_of,
)
from app.agent.models import ActionName, Cause, Trigger
from app.agent.planner import make_plan
from app.agent.workload import ContainerRole, FailingContainer, LogTail, ObjectRef, PodView
from tests.unit.scenes import (
    CATALOGUE,
    LIMITS,
    OLD,
    at,
    config_map,
    config_record,
    curves,
    evidence,
    pods,
    revision,
    step,
    workload,
)

SOURCE = LogSource(pod=ObjectRef(kind="Pod", namespace="prod", name="shop-1"), container="app", previous=True)


def tail(*lines: str, previous: bool = True) -> LogTail:
    return LogTail(lines=lines, previous=previous)


@pytest.mark.parametrize(
    ("lines", "patterns"),
    [
        (
            ["2026-02-20T17:00:01Z ERROR connect to 10.0.0.7:5432 refused after 31 ms"] * 3
            + ["2026-02-20T17:00:04Z INFO ready"],
            [("<*> ERROR connect to <*> refused after <*> ms", 3), ("<*> INFO ready", 1)],
        ),
        (
            ["cannot open /etc/shop/config.yaml", "cannot open /etc/shop/flags.yaml"],
            [("cannot open <*>", 2)],
        ),
        (
            ["failed to load order of alice", "failed to load order of bob"],
            [("failed to load order of <*>", 2)],
        ),
        (["login failed for jane.doe@example.com user=jane"], [("login failed for <*> user=<*>", 1)]),
        (
            ['{"ts": 1, "level": "error", "msg": "card 4111 declined", "customer": "Jane Doe"}'],
            [("error card <*> declined", 1)],
        ),
        (['{"level": "error", "customer": "Jane Doe"'], []),
        (
            ["panic: missing setting", "\tat shop.main(Shop.java:12)", '  File "shop.py", line 3'],
            [("panic: missing setting", 1)],
        ),
        (["\x1b[31mfatal\x1b[0m: \u202ecannot bind\x07 port"], [("fatal: cannot bind port", 1)]),
        (["401 9f8e7d6c", "", "   "], []),
        (["value 'secret words' is invalid"], [("value <*> is invalid", 1)]),
    ],
)
def test_lines_are_reduced_to_patterns(lines: list[str], patterns: list[tuple[str, int]]) -> None:
    """Serious ones first; what varies is left out, and structured lines keep what happened only."""
    assert [(one.pattern, one.count) for one in patterns_of(SOURCE, tail(*lines))] == patterns


@pytest.mark.parametrize(
    "line",
    [
        "error: password=hunter-two-of-two in url",
        "fatal Authorization: Bearer abcdefgh.ijklmnop",
        "panic postgres://shop:hunter-two-of-two@db/shop refused",
        '{"level":"error","msg":"bad client_secret: \'hunter-two-of-two\'"}',
        "refused auth: ann/hunter-of-words",
        "failed -----BEGIN PRIVATE KEY-----\nhunter-two-of-two\n-----END PRIVATE KEY-----",
    ],
)
def test_secrets_are_in_no_pattern(line: str) -> None:
    """They are taken out before anything else is done with a line."""
    kept = " ".join(pattern_facts(patterns_of(SOURCE, tail(*line.splitlines()))))
    assert "hunter" not in kept
    assert "ijklmnop" not in kept


@given(st.lists(st.text(max_size=300), max_size=20))
def test_any_text_becomes_a_few_short_patterns(lines: list[str]) -> None:
    """Whatever a container writes: no digit, no control character, nothing long."""
    found = patterns_of(SOURCE, tail(*lines))
    assert len(found) <= 4
    for one in found:
        assert len(one.pattern) <= 160
        assert one.pattern.isprintable()
        assert not any(character.isdecimal() for character in one.pattern)


@pytest.mark.parametrize(
    "line",
    [
        "login failed for user admin with password {}",
        "DB_PASS: {}",
        "Password is {}",
        "the password for admin is {}",
        "wrong password of admin: {}",
        "mysql -u root -p{} failed",
        "sshpass -p {} ssh db failed",
        "using secret {} for redis",
        "secret key {} invalid",
        "apiKey={} refused",
        "token {} denied",
        "tokens:{} denied",
        "credentials ({}) rejected",
        "pwd => {}",
        "the 'password' {} is wrong",
        'password "two {}" is wrong',
        "Bearer {} expired",
        '{{"error":"password {} refused"}}',
        '{{"level":"error","msg":"secretRef {} missing"}}',
    ],
)
@given(value=st.text(alphabet="QXZqxz", min_size=5, max_size=20))
def test_a_secret_that_looks_like_a_word_is_in_no_pattern(line: str, value: str) -> None:
    """It follows the name of a secret, or an option of a command line: what it looks like is not asked."""
    found = patterns_of(SOURCE, tail(line.format(value)))
    assert value not in " ".join(one.pattern for one in found)


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("login failed for admin with password Swordfish", "login failed for admin with password <*>"),
        ("using secret Swordfish for redis in prod", "using secret <*> redis in prod"),
        ("mysql -pSwordfish failed", "mysql -p<*> failed"),
        ("the password for admin is Swordfish now or never", "the password <*> is <*> or never"),
        ("password=hunter-two-of-two refused by db", "password=<*> refused by db"),
        (
            "a turkeyish passenger is a compassionate tokenizer",
            "a turkeyish passenger is a compassionate tokenizer",
        ),
    ],
)
def test_the_words_around_a_secret_stay(line: str, pattern: str) -> None:
    """Two words after its name are left out, or the value that is attached to it."""
    assert [one.pattern for one in patterns_of(SOURCE, tail(line))] == [pattern]


def _least_time(text: str) -> float:
    """The least processor time of a few reductions, in seconds."""
    took = []
    for _ in range(5):
        begun = thread_time()
        masked(text)
        took.append(thread_time() - begun)
    return min(took)


@pytest.mark.parametrize("unit", ["a", "a.", "a-", "a@", "'", "\"'`", "/a", "a://", "=", "key:", "-p", '"a'])
def test_the_work_grows_in_proportion_to_a_line(unit: str) -> None:
    """Of text without spaces eight times as much takes about eight times as long: squared it were 64."""
    assert _least_time((unit * 16_000)[:16_000]) < 30 * _least_time((unit * 2_000)[:2_000])


@given(st.text(alphabet="a@1. \n\u0663", max_size=60))
def test_a_word_with_a_digit_or_of_a_person_is_left_out_whole(text: str) -> None:
    """Whatever stands before and after the digit or the sign."""
    for word, left in zip(text.split(), masked(text).split(), strict=True):
        person = "@" in word[1:-1]
        assert left == ("<*>" if person or any(map(str.isdecimal, word)) else word)


@pytest.mark.parametrize("previous", [True, False])
def test_the_label_says_which_container_was_read(previous: bool) -> None:
    """Not which one was asked for: of a container that ended nothing may be left."""
    [fact] = pattern_facts(patterns_of(SOURCE, tail("cannot bind", previous=previous)))
    assert ("before its restart" in fact) is previous


def test_only_failing_containers_that_ran_are_read() -> None:
    """The one that ended of a crash loop, one for each container and fault, at most three."""
    crashed, second, *_ = pods(OLD, 5)

    def failing(pod: PodView, name: str = "app", role: ContainerRole = ContainerRole.MAIN) -> PodView:
        return replace(
            pod,
            ready=False,
            ready_changed_at=at(-10),
            waiting_reason="CrashLoopBackOff",
            restarts=4,
            failing=FailingContainer(name=name, role=role),
        )

    view = workload(
        [OLD],
        (
            failing(crashed),
            failing(second),
            failing(second, "init", ContainerRole.INIT),
            *(failing(crashed, name) for name in ("proxy", "agent", "cache")),
            replace(crashed, ready=True),
        ),
    )
    found = log_sources(view, evidence(workload=view))
    assert [(one.pod.name, one.container, one.previous) for one in found] == [
        (crashed.name, "app", True),
        (crashed.name, "proxy", True),
        (crashed.name, "agent", True),
    ]


REFUSED = 'FATAL: password authentication failed for user "shop"'


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        (REFUSED, True),
        ("ERROR 1045: Access denied for user 'shop'@'10.0.0.7' (using password: YES)", True),
        ("WRONGPASS invalid username-password pair or user is disabled.", True),
        ('{"level": "error", "msg": "SASL authentication failed"}', True),
        ("AmqpError: ACCESS_REFUSED - Login was refused", True),
        ("ERROR connection refused", False),
        ("WARN user jane gave a wrong password", False),
        ("INFO authentication done", False),
    ],
)
def test_a_line_about_refused_credentials_marks_its_pattern(line: str, *, refused: bool) -> None:
    """What drivers write for a server that refuses them, although the pattern leaves words of it out."""
    [one] = patterns_of(SOURCE, tail(line, line))
    assert one.credentials_refused is refused


@pytest.mark.parametrize(
    ("trigger", "changed", "read"),
    [
        (Trigger.HIGH_ERROR_RATE, -1.5, True),
        (Trigger.HIGH_LATENCY, -1.5, False),
        (Trigger.HIGH_ERROR_RATE, -9000.0, False),
    ],
)
def test_pods_that_serve_are_read_where_a_config_map_may_be_the_cause(
    trigger: Trigger, changed: float, *, read: bool
) -> None:
    """Errors of ready pods since it changed: their logs may name another cause."""
    view = workload(
        [OLD], pods(OLD, 4, containers=("app", "proxy")), config_maps=(config_map("new", changed),)
    )
    seen = evidence(trigger, workload=view, config_history=(config_record("old"),))
    found = log_sources(view, seen)
    assert [(one.container, one.previous) for one in found] == (
        [("app", False), ("proxy", False), ("app", False)] if read else []
    )


@pytest.mark.parametrize("log", [REFUSED, "ERROR dial tcp: lookup db: no such host"])
def test_refused_credentials_leave_the_cause_open(log: str) -> None:
    """A ConfigMap that changed just before is not reverted; both explanations reach the person."""
    view = workload([OLD], pods(OLD, 3), config_maps=(config_map("new", -1.0),))
    seen = evidence(
        Trigger.HIGH_ERROR_RATE,
        workload=view,
        config_history=(config_record("old"),),
        log_patterns=patterns_of(SOURCE, tail(log)),
        sli=curves(errors=step(-0.5, 0.001, 0.9)),
    )
    best = diagnose(seen).best
    assert (best.cause is Cause.UNKNOWN) is (log == REFUSED)
    assert any("credentials are refused" in fact for fact in best.evidence_for) is (log == REFUSED)
    assert any("ConfigMap" in fact for fact in best.evidence_for)


@pytest.mark.parametrize("log", [REFUSED, "INFO request served"])
def test_logs_make_no_room_for_the_action_of_another_cause(log: str) -> None:
    """Anyone may write to a log: a release that may also be a ConfigMap change is not rolled back."""
    new = revision(7, -1.0)
    view = workload([new, OLD], pods(new), config_maps=(config_map("new", -0.8),))
    seen = evidence(
        Trigger.HIGH_ERROR_RATE,
        workload=view,
        config_history=(config_record("old"),),
        log_patterns=patterns_of(SOURCE, tail(log)),
        sli=curves(errors=step(-0.5, 0.001, 0.9)),
    )
    assert make_plan(diagnose(seen), seen, CATALOGUE, LIMITS).actions == ()


def test_logs_do_not_hold_back_what_they_say_nothing_about() -> None:
    """No ConfigMap changed: a release that fails is rolled back, whatever its log says."""
    new = revision(7, -1.0)
    seen = evidence(
        Trigger.HIGH_ERROR_RATE,
        workload=workload([new, OLD], pods(new)),
        log_patterns=patterns_of(SOURCE, tail(REFUSED)),
        sli=curves(errors=step(-0.5, 0.001, 0.9)),
    )
    [action] = make_plan(diagnose(seen), seen, CATALOGUE, LIMITS).actions
    assert action.name is ActionName.ROLLBACK
