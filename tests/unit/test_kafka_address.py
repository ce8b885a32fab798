"""Kafka's addresses: what they say, and that a wrong one is refused without repeating a secret."""

from __future__ import annotations

import pytest

from app.connectors.streams.kafka.address import KafkaAddress, Start, parse_kafka_url
from app.errors import ConfigurationError

SASL = "security.protocol=SASL_SSL&sasl.mechanism=PLAIN"


def test_the_shortest_address() -> None:
    """Host and topic are enough; the rest has defaults."""
    address = parse_kafka_url("kafka://broker/signals")
    assert address == KafkaAddress(
        servers=("broker:9092",), topic="signals", group="heal", start=Start.EARLIEST, properties={}
    )
    assert address.dead_letters == "signals.dead"


def test_everything_that_can_be_said() -> None:
    """Several brokers, IPv6 among them, account, group, start and properties."""
    address = parse_kafka_url(
        "kafka://agent:p%40ss%2C%2F@a.example:9093,[::1]:9094,c/team.signals_1-x"
        f"?group=heal-prod&start=latest&{SASL}&ssl.ca.location=%2Fetc%2Fca.pem"
    )
    assert address.servers == ("a.example:9093", "[::1]:9094", "c:9092")
    assert (address.topic, address.group, address.start) == ("team.signals_1-x", "heal-prod", Start.LATEST)
    assert address.properties == {
        "sasl.username": "agent",
        "sasl.password": "p@ss,/",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "ssl.ca.location": "/etc/ca.pem",
    }


def test_properties_from_settings_are_added() -> None:
    """Secrets may stay out of the address; where both say something the address wins."""
    address = parse_kafka_url(
        f"kafka://b/t?{SASL}&client.id=two",
        {"sasl.username": "u", "sasl.password": "hidden", "client.id": "one"},
    )
    assert address.properties["sasl.password"] == "hidden"
    assert address.properties["client.id"] == "two"


def test_secrets_do_not_show() -> None:
    """Neither as text nor as representation."""
    address = parse_kafka_url(f"kafka://u:hidden@b:1/t?{SASL}")
    assert str(address) == "topic t (group heal) of Kafka at b:1"
    assert "hidden" not in repr(address)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is none"),
        ("redis://b/t", "is none"),
        ("kafka://b/t#x", "is none"),
        ("kafka:///t", "host or port"),
        ("kafka://b,/t", "host or port"),
        ("kafka://b,,c/t", "host or port"),
        ("kafka://b:/t", "host or port"),
        ("kafka://b:0/t", "host or port"),
        ("kafka://b:65536/t", "host or port"),
        ("kafka://b:x/t", "host or port"),
        ("kafka://b c/t", "host or port"),
        ("kafka://[::1/t", "host"),
        ("kafka://b", "no topic"),
        ("kafka://b/", "no topic"),
        ("kafka://b/t/u", "no topic"),
        ("kafka://b/t%2Fu", "no topic"),
        ("kafka://b/..", "no topic"),
        ("kafka://b/ü", "no topic"),
        (f"kafka://b/{'t' * 245}", "no topic"),
        ("kafka://b/t?group=", "group"),
        (f"kafka://b/t?group={'g' * 201}", "group"),
        ("kafka://b/t?group=a%00b", "group"),
        ("kafka://b/t?group=a&group=b", "twice"),
        ("kafka://b/t?start=middle", "earliest nor latest"),
        ("kafka://b/t?grup=a", "'grup'"),
        ("kafka://b/t?Security.Protocol=SSL", "not a Kafka property"),
        ("kafka://b/t?enable.auto.commit=true", "enable.auto.commit cannot be set"),
        ("kafka://b/t?group.id=x", "group.id cannot be set"),
        ("kafka://b/t?acks=0", "acks cannot be set"),
        ("kafka://u@b/t", "user without a password"),
        ("kafka://:hidden@b/t", "user without a password"),
        ("kafka://u:hidden@b/t", "sasl.password has no effect"),
        ("kafka://u:hidden@b/t?security.protocol=SSL", "sasl.password has no effect"),
        ("kafka://b/t?ssl.ca.location=hidden", "ssl.ca.location has no effect"),
        ("kafka://b/t?security.protocol=SASL_PLAINTEXT&ssl.key.password=hidden", "ssl.key.password has no"),
    ],
)
def test_a_wrong_address_is_reported(text: str, told: str) -> None:
    """The message names what is wrong, and never repeats a value."""
    with pytest.raises(ConfigurationError, match=told) as caught:
        parse_kafka_url(text)
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_longest_topic_leaves_room_for_its_dead_letters() -> None:
    """Kafka allows 249 characters."""
    assert len(parse_kafka_url(f"kafka://b/{'t' * 244}").dead_letters) == 249
