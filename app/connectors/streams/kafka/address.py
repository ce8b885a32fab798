"""The address of a Kafka topic, `kafka://[user:password@]host:port,host:port/topic[?group=...&...]`. Pure.

An option with a dot in its name is a property of the client library
(`security.protocol=SASL_SSL`); what the agent's guarantees rest on cannot be
set. Used by `app.connectors.streams.kafka.stream` and by what shows or checks settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from app.errors import ConfigurationError

DEFAULT_GROUP = "heal"
DEAD_LETTERS_SUFFIX = ".dead"
_DEFAULT_PORT = 9092
_MAX_TOPIC_CHARS = 249 - len(DEAD_LETTERS_SUFFIX)
_MAX_GROUP_CHARS = 200
_FORM = "write it as kafka://host:9092,host:9092/topic?group=heal"
_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")
_TOPIC = re.compile(r"[A-Za-z0-9._-]+")
_PROPERTY = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
_OWNED = frozenset(
    {
        "acks",
        "auto.commit.enable",
        "auto.commit.interval.ms",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.protocol",
        "isolation.level",
        "metadata.broker.list",
        "partition.assignment.strategy",
        "plugin.library.paths",
        "request.required.acks",
        "transactional.id",
    }
)
"""Properties that the agent's guarantees rest on, or that the address says in its own way."""


class Start(StrEnum):
    """Where a group begins in a partition in which it has acknowledged nothing yet."""

    EARLIEST = "earliest"
    LATEST = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaAddress:
    """Which topic of which cluster is read, as which group, and how to get in."""

    servers: tuple[str, ...]
    """`host:port` of some brokers; the others are learnt from them."""
    topic: str
    group: str
    start: Start
    properties: Mapping[str, str] = field(repr=False)
    """Properties of the client library, secrets among them."""

    @property
    def dead_letters(self) -> str:
        """The topic that rejected messages are put into."""
        return self.topic + DEAD_LETTERS_SUFFIX

    def __str__(self) -> str:
        """Without properties, for messages and logs."""
        return f"topic {self.topic} (group {self.group}) of Kafka at {','.join(self.servers)}"


def parse_kafka_url(text: str, properties: Mapping[str, str] | None = None) -> KafkaAddress:
    """Read an address; `properties` are added to those in it, which win.

    Raises `ConfigurationError`, which never repeats a value: it may be a secret.
    """
    try:
        parts = urlsplit(text.strip())
    except ValueError:
        raise ConfigurationError(f"the Kafka address has a host that cannot be used; {_FORM}") from None
    if parts.scheme != "kafka" or parts.fragment:
        raise ConfigurationError(f"the Kafka address is none; {_FORM}")
    account, _, servers = parts.netloc.rpartition("@")
    options = _options(parts)
    found = {name: options.pop(name) for name in list(options) if "." in name or name == "acks"}
    address = KafkaAddress(
        servers=tuple(_server(server) for server in servers.split(",")),
        topic=_topic(parts.path),
        group=_group(options.pop("group", DEFAULT_GROUP)),
        start=_start(options.pop("start", Start.EARLIEST)),
        properties=_checked({**(properties or {}), **_credentials(account), **found}),
    )
    if options:
        raise ConfigurationError(
            f"the Kafka address has an option {min(options)!r}; known are group, start, and the client's own "
            "properties such as security.protocol"
        )
    return address


def _options(parts: SplitResult) -> dict[str, str]:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ConfigurationError("the Kafka address gives an option twice; give it once")
    return options


def _server(text: str) -> str:
    found = _SERVER.fullmatch(text)
    port = int(found["port"] or _DEFAULT_PORT) if found else 0
    if found is None or not 0 < port <= 65535:
        raise ConfigurationError(f"the Kafka address has a host or port that cannot be used; {_FORM}")
    return f"{found['host']}:{port}"


def _topic(path: str) -> str:
    topic = unquote(path).removeprefix("/")
    if not _TOPIC.fullmatch(topic) or topic in (".", "..") or len(topic) > _MAX_TOPIC_CHARS:
        raise ConfigurationError(
            "the Kafka address names no topic: a topic has letters, digits, dots, dashes and underscores, at "
            f"most {_MAX_TOPIC_CHARS} of them; {_FORM}"
        )
    return topic


def _group(group: str) -> str:
    if not group or not group.isprintable() or len(group) > _MAX_GROUP_CHARS:
        raise ConfigurationError(
            f"the Kafka address's group is empty, unprintable, or longer than {_MAX_GROUP_CHARS} characters"
        )
    return group


def _start(start: str) -> Start:
    try:
        return Start(start)
    except ValueError:
        raise ConfigurationError("the Kafka address's start is neither earliest nor latest") from None


def _credentials(account: str) -> dict[str, str]:
    user, _, password = account.partition(":")
    if not account:
        return {}
    if not user or not password:
        raise ConfigurationError("the Kafka address has a user without a password, or the reverse")
    return {"sasl.username": unquote(user), "sasl.password": unquote(password)}


def _checked(properties: dict[str, str]) -> dict[str, str]:
    """Properties that contradict the agent's guarantees or each other are errors."""
    for name in sorted(properties):
        if name in _OWNED:
            raise ConfigurationError(f"the Kafka property {name} cannot be set: the agent sees to it itself")
        if not _PROPERTY.fullmatch(name):
            raise ConfigurationError(f"{name!r} is not a Kafka property")
    protocol = properties.get("security.protocol", "PLAINTEXT").upper()
    if not protocol.startswith("SASL_") and (sasl := _first(properties, "sasl.")):
        raise ConfigurationError(
            f"the Kafka property {sasl} has no effect without security.protocol=SASL_SSL "
            "(or SASL_PLAINTEXT) and sasl.mechanism"
        )
    if not protocol.endswith("SSL") and (tls := _first(properties, "ssl.")):
        raise ConfigurationError(
            f"the Kafka property {tls} has no effect without security.protocol=SSL or SASL_SSL"
        )
    return properties


def _first(properties: Mapping[str, str], prefix: str) -> str | None:
    return min((name for name in properties if name.startswith(prefix)), default=None)
