"""Opens the streams that `INTAKE_FROM` names, by the scheme of each address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.agent.ports.streams import SignalStream, StreamProgress
from app.config import Settings
from app.connectors.streams.kafka.address import parse_kafka_url
from app.connectors.streams.kafka.stream import KafkaStream
from app.connectors.streams.redis.address import parse_redis_url
from app.connectors.streams.redis.stream import RedisStream
from app.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStream:
    """A stream with its names."""

    source: str
    """What its signals give as their source: `kafka` or `redis`."""
    address: str
    """For people; without secrets."""
    stream: SignalStream
    progress: StreamProgress = field(default_factory=StreamProgress)


def open_streams(settings: Settings) -> tuple[OpenStream, ...]:
    """The streams of INTAKE_FROM; they connect on first use.

    Raises `ConfigurationError`, without secrets, for a wrong address.
    """
    properties = {name: value.get_secret_value() for name, value in settings.kafka_properties.items()}
    return tuple(_open(url.get_secret_value(), properties) for url in settings.intake_from)


def _open(url: str, kafka_properties: Mapping[str, str]) -> OpenStream:
    match url.partition("://")[0]:
        case "kafka":
            kafka = parse_kafka_url(url, kafka_properties)
            return OpenStream(source="kafka", address=str(kafka), stream=KafkaStream(kafka))
        case "redis" | "rediss":
            redis = parse_redis_url(url)
            return OpenStream(source="redis", address=str(redis), stream=RedisStream(redis))
        case _:
            raise ConfigurationError(
                "INTAKE_FROM: an address is neither kafka://host:9092/topic nor "
                "redis://host:6379/0?stream=signals"
            )
