"""The embedded policy engine: a mistake in a bundle is reported with its place; every fault is a deny."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.agent.ids import JsonObject
from app.agent.models import DecisionKind
from app.agent.ports.policy import PolicyAnswer
from app.config import Settings
from app.connectors.policy import embedded
from app.connectors.policy import engine as rego_engine
from app.connectors.policy.bundle import read_bundle, shipped_policies
from app.connectors.policy.connect import connect_policy
from app.connectors.policy.embedded import EmbeddedPolicy
from app.connectors.policy.engine import check_folder
from app.connectors.policy.opa import OpaPolicy
from app.errors import ConfigurationError

ALLOW = 'package heal\n\ndecision := {"decision": "allow", "reasons": ["why not"], "rules": ["all"]}\n'
QUESTION: JsonObject = {"version": "2", "dry_run": True}


def bundle(folder: Path, text: str = ALLOW, **more: str) -> Path:
    """A folder with one policy, and other files by name."""
    folder.mkdir(exist_ok=True)
    (folder / "heal.rego").write_text(text)
    for name, content in more.items():
        (folder / name).write_text(content)
    return folder


# ------------------------------------------------------------------ what a bundle may be


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        pytest.param("package heal\n\ndecision := \n", ":4:1", "expecting expression", id="syntax"),
        pytest.param("package heal\n\ndecision := {\n", "heal.rego:", "", id="cut off"),
        pytest.param("decision := 1\n", ":1:", "", id="no package"),
        pytest.param("package heal\n\ndecision := y\n", ":3:13", "unsafe", id="unsafe variable"),
        pytest.param(
            "package other\n\ndecision := 1\n", "policies", "data.heal.decision", id="other package"
        ),
        pytest.param("package heal\n\ndecision := nope(1)\n", ":3:", "no function nope", id="no function"),
        pytest.param(
            "package heal\n\ndecision := 1 if {\n\tfalse\n\tnope(1)\n}\n",
            ":5:",
            "no function nope",
            id="unreached",
        ),
        pytest.param(
            "package heal\n\nf(n) := f(n + 1)\n\ndecision := f(1)\n",
            ":3",
            "depends on itself",
            id="recursion",
        ),
        pytest.param(
            "package heal\n\nf(n) := a\n\na := f(1)\n\ndecision := a\n",
            ":3",
            "depends on itself",
            id="in a circle",
        ),
        pytest.param(
            'package heal\n\ndecision := http.send({"method": "get", "url": "http://x"}).body\n',
            ":3:",
            "http.send may not be called",
            id="network",
        ),
        pytest.param(
            "package heal\n\ndecision := time.now_ns()\n", ":3:", "may not be called", id="the clock"
        ),
    ],
)
def test_a_mistake_stops_the_start_with_file_and_line(
    tmp_path: Path, text: str, place: str, words: str
) -> None:
    """What OPA would refuse when it compiles, whether it is reached or not."""
    with pytest.raises(ConfigurationError) as refusal:
        EmbeddedPolicy(bundle(tmp_path / "policies", text))
    assert place in str(refusal.value)
    assert words in str(refusal.value)
    assert "backtrace" not in str(refusal.value)


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    """One does not hide those of other files."""
    folder = bundle(tmp_path / "policies", "package heal\n\ndecision := \n", **{"own.rego": "nonsense\n"})
    assert [problem.file for problem in check_folder(folder)] == [
        str(folder / "heal.rego"),
        str(folder / "own.rego"),
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [("{", "line 1"), ("[]", "a JSON object"), ('{"a": 1, "a": 2}', "a"), ('{"a": NaN}', "NaN")],
)
def test_data_that_is_no_data_is_refused(tmp_path: Path, data: str, words: str) -> None:
    """As strictly as JSON from outside."""
    (problem,) = check_folder(bundle(tmp_path / "policies", **{"data.json": data}))
    assert problem.file.endswith("data.json")
    assert words in problem.message


def test_data_stands_under_the_path_of_its_folder(tmp_path: Path) -> None:
    """As for OPA; and two files may not say the same thing."""
    folder = bundle(tmp_path / "policies", **{"data.json": '{"team": {"name": "a"}}'})
    (folder / "team").mkdir()
    (folder / "team" / "data.json").write_text('{"size": 3}')
    assert read_bundle(folder).data == {"team": {"name": "a", "size": 3}}
    (folder / "team" / "data.json").write_text('{"name": "b"}')
    assert "'team.name' is given by another" in read_bundle(folder).problems[0].message


def test_hidden_copies_are_left_out(tmp_path: Path) -> None:
    """A mounted ConfigMap keeps its versions in hidden folders, with links in front."""
    folder = tmp_path / "policies"
    version = folder / "..2026_02_20"
    version.mkdir(parents=True)
    (version / "heal.rego").write_text(ALLOW)
    (folder / "..data").symlink_to(version.name)
    (folder / "heal.rego").symlink_to("..data/heal.rego")
    assert [module.file for module in read_bundle(folder).modules] == [str(folder / "heal.rego")]
    assert check_folder(folder) == ()


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * 1_100_000], ids=["a folder", "bytes", "huge"])
def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path, content: bytes | None) -> None:
    """It may be the one that denies."""
    folder = bundle(tmp_path / "policies")
    if content is None:
        folder = folder / "heal.rego"
    else:
        (folder / "more.rego").write_bytes(content)
    assert len(check_folder(folder)) == 1


def test_an_empty_folder_is_a_mistake(tmp_path: Path) -> None:
    """No policy was surely not meant."""
    with pytest.raises(ConfigurationError, match="POLICY_DIR"):
        EmbeddedPolicy(tmp_path)


async def test_tests_do_not_decide(tmp_path: Path) -> None:
    """A broken test does not stop an agent; `heal policy check` reports it."""
    folder = bundle(tmp_path / "policies", **{"heal_test.rego": "package heal_test\n\ntest_x if \n"})
    await EmbeddedPolicy(folder).aclose()
    assert len(check_folder(folder)) == 1


# ------------------------------------------------------------------ answers


async def test_a_complete_decision_is_taken_as_it_is(tmp_path: Path) -> None:
    """With the rules that it names."""
    policy = EmbeddedPolicy(bundle(tmp_path / "policies"))
    answer = await policy.decide(QUESTION)
    await policy.aclose()
    assert answer == PolicyAnswer(kind=DecisionKind.ALLOW, reasons=("why not",), rules=("all",))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("decision := 1 if input.service", "undefined"),
        ("decision := {}", "no complete decision"),
        ('decision := "allow"', "no complete decision"),
        ('decision := "<undefined>"', "undefined"),
        ('decision := {"decision": "allow"}', "no complete decision"),
        ('decision := {"decision": "maybe", "reasons": []}', "no complete decision"),
        ('decision := {"decision": "allow", "reasons": "x"}', "no complete decision"),
        ('decision := {"decision": "allow", "reasons": [1]}', "no complete decision"),
        ("decision contains x if some x in [1]", "no complete decision"),
        ("decision := 1 if to_number(input.target_problem) > 1", "undefined"),
        ('decision := 1 if to_number("x") > 1', "heal.rego:3"),
        ("decision := 1 if true\n\ndecision := 2 if input.dry_run", "conflicts"),
    ],
)
async def test_anything_but_a_complete_decision_is_a_deny(tmp_path: Path, rule: str, words: str) -> None:
    """Undefined, malformed, contradicting, failing: each with its reason (promise 7)."""
    policy = EmbeddedPolicy(bundle(tmp_path / "policies"))
    bundle(tmp_path / "policies", f"package heal\n\n{rule}\n")
    await policy.reload()
    answer = await policy.decide(QUESTION)
    await policy.aclose()
    assert answer.kind is DecisionKind.DENY
    assert words in " ".join(answer.reasons)
    assert answer.rules == ("engine fault",)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
async def test_a_question_that_cannot_be_written_is_a_deny(tmp_path: Path, value: object) -> None:
    """Nothing is raised."""
    policy = EmbeddedPolicy(bundle(tmp_path / "policies"))
    answer = await policy.decide({"value": value})  # type: ignore[dict-item]  # what must not be there
    await policy.aclose()
    assert answer.kind is DecisionKind.DENY


async def test_a_question_too_deep_for_the_engine_is_a_deny(tmp_path: Path) -> None:
    """And the next one is answered."""
    deep: JsonObject = json.loads('{"a":' * 300 + "1" + "}" * 300)
    policy = EmbeddedPolicy(bundle(tmp_path / "policies"))
    kinds = [(await policy.decide(document)).kind for document in (deep, QUESTION)]
    await policy.aclose()
    assert kinds == [DecisionKind.DENY, DecisionKind.ALLOW]


async def test_a_late_decision_is_a_deny(tmp_path: Path) -> None:
    """The engine's thread is held up; when it is free, the next question is answered."""
    policy = EmbeddedPolicy(bundle(tmp_path / "policies"), timeout_seconds=0.2)
    held = threading.Event()
    policy._submit(lambda: held.wait(60))
    late = await policy.decide(QUESTION)
    held.set()
    await policy.reload()  # returns when the thread is free again
    policy._timeout = 30
    on_time = await policy.decide(QUESTION)
    await policy.aclose()
    assert late.kind is DecisionKind.DENY
    assert late.reasons == ("the policy engine gave no decision within 0.2 s",)
    assert on_time.kind is DecisionKind.ALLOW


async def test_a_panic_of_the_engine_is_a_deny_and_a_new_engine(tmp_path: Path) -> None:
    """The library's own: it is touched from another thread, which panics with no `Exception`."""
    policy = EmbeddedPolicy(bundle(tmp_path / "policies"))
    made_elsewhere: list[rego_engine.Compiled] = []
    made, asked = threading.Event(), threading.Event()

    def make() -> None:
        compiled, _ = rego_engine.compile_bundle(read_bundle(tmp_path / "policies"))
        assert compiled is not None
        made_elsewhere.append(compiled)
        del compiled
        made.set()
        asked.wait(30)
        made_elsewhere.clear()  # dropped where it was made

    maker = threading.Thread(target=make)
    maker.start()
    await asyncio.to_thread(made.wait, 30)
    policy._submit(lambda: setattr(embedded._HELD, "compiled", made_elsewhere[0])).result()
    panicked = await policy.decide(QUESTION)
    after = await policy.decide(QUESTION)
    asked.set()
    maker.join()
    await policy.aclose()
    assert (panicked.kind, after.kind) == (DecisionKind.DENY, DecisionKind.ALLOW)
    assert "the policy engine failed" in panicked.reasons[0]


async def test_many_ask_at_once_from_several_loops(tmp_path: Path) -> None:
    """The engine stays on its thread, for any caller."""
    policy = EmbeddedPolicy(bundle(tmp_path / "policies"), timeout_seconds=30)

    async def ask() -> list[DecisionKind]:
        return [answer.kind for answer in await asyncio.gather(*(policy.decide(QUESTION) for _ in range(50)))]

    kinds = await ask() + await asyncio.to_thread(lambda: asyncio.run(ask()))
    await policy.aclose()
    assert kinds == [DecisionKind.ALLOW] * 100


def test_an_engine_that_is_not_closed_ends_with_its_thread(tmp_path: Path) -> None:
    """Dropped by another thread, the library prints a traceback: at the exit of a program, and before."""
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from app.connectors.policy.embedded import EmbeddedPolicy\n"
        "dropped = EmbeddedPolicy(Path(sys.argv[1]))\ndel dropped\n"
        "kept = EmbeddedPolicy(Path(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(bundle(tmp_path / "policies"))],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stderr == ""


async def test_a_closed_engine_denies(tmp_path: Path) -> None:
    """And closing twice is no fault."""
    policy = EmbeddedPolicy(bundle(tmp_path / "policies"))
    await policy.aclose()
    await policy.aclose()
    assert (await policy.decide(QUESTION)).reasons == ("the policy engine is closed",)


# ------------------------------------------------------------------ reload, absence, settings


async def test_a_broken_bundle_at_reload_denies_until_it_is_fixed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The older policy is not used on: it would be unclear which one decides."""
    folder = bundle(tmp_path / "policies")
    policy = EmbeddedPolicy(folder)
    bundle(folder, "package heal\n\ndecision := \n")
    unchanged = await policy.decide(QUESTION)
    (problem,) = await policy.reload()
    broken = await policy.decide(QUESTION)
    bundle(folder)
    assert await policy.reload() == ()
    mended = await policy.decide(QUESTION)
    await policy.aclose()
    assert [a.kind for a in (unchanged, broken, mended)] == [
        DecisionKind.ALLOW,
        DecisionKind.DENY,
        DecisionKind.ALLOW,
    ]
    assert (problem.line, problem.column) == (4, 1)
    assert f"{folder / 'heal.rego'}:4:1" in broken.reasons[0]
    assert "heal.rego:4:1" in caplog.text


async def test_without_the_library_everything_is_denied_and_the_start_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a platform that has no build of it."""
    monkeypatch.setitem(sys.modules, "regorus", None)
    with caplog.at_level(logging.WARNING):
        policy = EmbeddedPolicy(bundle(tmp_path / "policies"))
    answer = await policy.decide(QUESTION)
    await policy.aclose()
    assert "every action is denied" in caplog.text
    assert answer.kind is DecisionKind.DENY
    assert "is not installed on this platform: set OPA_URL" in answer.reasons[0]


async def test_the_shipped_policies_are_the_default() -> None:
    """Found in the tree and, beside it, where a wheel would put them."""
    engine = connect_policy(Settings(_env_file=None))
    assert isinstance(engine, EmbeddedPolicy)
    await engine.aclose()
    assert (shipped_policies() / "heal.rego").is_file()


async def test_a_folder_of_one_s_own_is_asked_instead(tmp_path: Path) -> None:
    """POLICY_DIR."""
    engine = connect_policy(Settings(_env_file=None, policy_dir=bundle(tmp_path / "policies")))
    answer = await engine.decide(QUESTION)
    await engine.aclose()
    assert answer.rules == ("all",)


async def test_a_server_is_asked_instead_of_the_policies_here(tmp_path: Path) -> None:
    """OPA_URL; a broken folder does not matter then."""
    settings = Settings(_env_file=None, opa_url="http://127.0.0.1:9", policy_dir=tmp_path / "none")
    engine = connect_policy(settings)
    assert isinstance(engine, OpaPolicy)
    await engine.aclose()
