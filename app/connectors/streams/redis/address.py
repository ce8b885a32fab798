"""The address of a Redis stream, `redis://[user[:password]@]host[:port][/db][?stream=...&group=...]`. Pure.

`rediss://` speaks TLS and checks the server's certificate. Used by
`app.connectors.streams.redis.stream` and what shows or checks settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from app.errors import ConfigurationError

DEFAULT_STREAM = "signals"
DEFAULT_GROUP = "heal"
_DEFAULT_PORT = 6379
_MAX_NAME_CHARS = 200
_FORM = "write it as redis://host:6379/0?stream=signals&group=heal (rediss:// for TLS)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Which stream of which server is read, and as which group."""

    host: str
    port: int
    database: int
    tls: bool
    username: str | None
    password: SecretStr | None
    stream: str
    group: str
    trim: bool
    """Entries that every group has acknowledged are removed."""

    def __str__(self) -> str:
        """Without the account, for messages and logs."""
        return (
            f"stream {self.stream} (group {self.group}) of Redis at {self.host}:{self.port}/{self.database}"
        )


def parse_redis_url(text: str) -> RedisAddress:
    """Read an address; raises `ConfigurationError`, which never repeats it: it may hold a password."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise ConfigurationError(
            f"the Redis address has a host or port that cannot be used; {_FORM}"
        ) from None
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.fragment:
        raise ConfigurationError(f"the Redis address is none; {_FORM}")
    if port == 0:
        raise ConfigurationError(f"the Redis address has a host or port that cannot be used; {_FORM}")
    options = _options(parts)
    return RedisAddress(
        host=parts.hostname,
        port=port or _DEFAULT_PORT,
        database=_database(parts.path),
        tls=parts.scheme == "rediss",
        username=unquote(parts.username) if parts.username else None,
        password=SecretStr(unquote(parts.password)) if parts.password else None,
        stream=_name(options, "stream", DEFAULT_STREAM),
        group=_name(options, "group", DEFAULT_GROUP),
        trim=_yes_or_no(options, "trim", default=True),
    )


def _options(parts: SplitResult) -> dict[str, str]:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ConfigurationError("the Redis address gives an option twice; give it once")
    if unknown := sorted(options.keys() - {"stream", "group", "trim"}):
        raise ConfigurationError(
            f"the Redis address has an option {unknown[0]!r}; known are stream, group and trim"
        )
    return options


def _database(path: str) -> int:
    text = path.strip("/")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise ConfigurationError(f"the Redis address names no database by number; {_FORM}")
    return int(text)


def _name(options: dict[str, str], option: str, default: str) -> str:
    name = options.get(option, default)
    if not name or not name.isprintable() or len(name) > _MAX_NAME_CHARS:
        raise ConfigurationError(
            f"the Redis address's {option} is empty, unprintable, or longer than {_MAX_NAME_CHARS} characters"
        )
    return name


def _yes_or_no(options: dict[str, str], option: str, *, default: bool) -> bool:
    match options.get(option):
        case None:
            return default
        case "yes":
            return True
        case "no":
            return False
        case _:
            raise ConfigurationError(f"the Redis address's {option} is neither yes nor no")
