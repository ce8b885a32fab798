"""What an action changes, in words: old value, new value, and never a secret."""

from __future__ import annotations

import json

import pytest

from app.agent.guardrails.field_diff import in_words, parts_shown
from app.agent.ids import Json, JsonObject


def container(**more: Json) -> JsonObject:
    return {"template": {"spec": {"containers": [{"name": "app", **more}]}}}


def env(name: str, value: str) -> Json:
    return {"env": [{"name": "MODE", "value": "fast"}, {"name": name, "value": value}]}


APP = "spec.template.spec.containers[app]"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"spec": {"replicas": 3}}, {"spec": {"replicas": 5}}, "spec.replicas 3 -> 5"),
        ({"spec": {}}, {"spec": {"paused": True}}, "spec.paused none -> true"),
        ({"spec": {"a": 1}}, {"spec": {"a": 1}}, ""),
        (
            {"spec": container(image="shop:2")},
            {"spec": container(image="shop:1")},
            f"{APP}.image shop:2 -> shop:1",
        ),
        (
            {"spec": container(**env("LEVEL", "debug"))},  # type: ignore[arg-type] # a plain object
            {"spec": container(**env("LEVEL", "info"))},  # type: ignore[arg-type] # a plain object
            f"{APP}.env[LEVEL] debug -> info",
        ),
        (
            {"data": {"flags.json": json.dumps({"flags": {"new-cart": {"state": "ENABLED"}}})}},
            {"data": {"flags.json": json.dumps({"flags": {"new-cart": {"state": "DISABLED"}}}, indent=2)}},
            "data.flags.json.flags.new-cart.state ENABLED -> DISABLED",
        ),
        ({"data": {"a": "x" * 80}}, {"data": {}}, f"data.a {'x' * 60}… -> none"),
        (
            {"spec": {str(n): 1 for n in range(9)}},
            {"spec": {str(n): 2 for n in range(9)}},
            ", ".join(f"spec.{n} 1 -> 2" for n in range(6)) + " and 3 more",
        ),
    ],
)
def test_a_change_is_named_by_field_with_both_values(before: Json, after: Json, said: str) -> None:
    """Entries of lists are named, a JSON document is compared by its fields, and long lists are cut."""
    assert in_words(before, after) == said


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"data": {"DB_PASSWORD": "hunter2x"}}, {"data": {"DB_PASSWORD": "swordfish"}}),
        ({"spec": container(**env("API_KEY", "abcdef"))}, {"spec": container(**env("API_KEY", "fedcba"))}),  # type: ignore[arg-type] # plain objects
        (
            {"data": {"url": "postgresql://ann:hunter2x@db/shop"}},
            {"data": {"url": "postgresql://ann:swordfish@db/shop"}},
        ),
        ({"data": {"session": "hunter2xhunter2xhunter2x"}}, {"data": {"session": "swordfish1swordfish1"}}),
        ({"data": {"file": "a: 1\nb: hunter2x"}}, {"data": {"file": "a: 1\nb: swordfish"}}),
        (
            {"data": {"app.json": '{"db": {"password": "hunter2x"}}'}},
            {"data": {"app.json": '{"db": {"password": "swordfish"}}'}},
        ),
        ({"binaryData": {"x": "aHVudGVyMng="}}, {"binaryData": {"x": "c3dvcmRmaXNo"}}),
        ({"data": {"token": "hunter2x"}}, {"data": {"token": "swordfish"}}),
        ({"spec": container(**env("PGPASS", "hunter2x"))}, {"spec": container(**env("PGPASS", "swordfish"))}),  # type: ignore[arg-type] # plain objects
        (
            {"spec": container(args=["--token", "hunter2x"])},
            {"spec": container(args=["--token", "swordfish"])},
        ),
        (
            {"data": {"a.json": '{"password": ["hunter2x"]}'}},
            {"data": {"a.json": '{"password": ["swordfish"]}'}},
        ),
        (
            {"metadata": {"annotations": {"last": '{"env": {"DB_TOKEN": "hunter2x"}}'}}},
            {"metadata": {"annotations": {"last": '{"env": {"DB_TOKEN": "swordfish"}}'}}},
        ),
    ],
)
def test_a_value_that_may_be_a_secret_is_hidden(before: Json, after: Json) -> None:
    """By its name, by its shape, or because it is several lines of configuration."""
    said = in_words(before, after)
    assert said.endswith(" [redacted] -> [redacted]"), said
    for secret in ("hunter2x", "swordfish", "abcdef", "fedcba", "aHVudGVy"):
        assert secret not in said


@pytest.mark.parametrize(
    "hostile",
    [
        {"a": "x\x1b[31mred\u202e\x00y" + "z" * 100_000},
        {"a.json": json.dumps({"k\n\x1b[2J" + "k" * 100_000: 1})},
        {"a.json": '{"a":' * 900 + "1" + "}" * 900},
        {"a.json": '{"a": "\\ud800"}'},
        {"a.json": "[" * 900 + "]" * 900},
    ],
)
def test_hostile_contents_stay_one_short_line(hostile: JsonObject) -> None:
    """Huge names and values are cut, and control characters are left out, also of names."""
    said = in_words({"data": hostile}, {"data": {}})
    assert said.startswith("data.a")
    assert said.isprintable()
    assert len(said) < 400


def test_a_switch_with_the_name_of_a_credential_is_shown() -> None:
    """A flag is no secret, whatever its name."""
    before: Json = {"data": {"flags.json": '{"new-auth": true}'}}
    after: Json = {"data": {"flags.json": '{"new-auth": false}'}}
    assert in_words(before, after) == "data.flags.json.new-auth true -> false"


def test_what_servers_and_the_agent_write_is_left_out() -> None:
    """The marker, managed fields and the status are no change that an action is about."""
    item: JsonObject = {
        "metadata": {"annotations": {"self-healing-devops-agent/intent": "int_1", "team": "a"}, "uid": "1"},
        "spec": {"replicas": 3},
        "status": {"replicas": 3},
    }
    assert parts_shown(item) == {"spec": {"replicas": 3}, "metadata": {"annotations": {"team": "a"}}}
    assert "status" in parts_shown(item, status=True)
