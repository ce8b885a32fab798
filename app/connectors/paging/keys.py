"""Checks the keys of paging services. Pure."""

from __future__ import annotations

from pydantic import SecretStr

from app.errors import ConfigurationError
from app.redaction import remember

_MAX_LENGTH = 256


def checked_key(key: SecretStr, setting: str) -> str:
    """The key, kept out of logs; raises `ConfigurationError`, without it, when it cannot be one."""
    text = key.get_secret_value().strip()
    if not text or len(text) > _MAX_LENGTH or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(f"{setting} is empty, too long, or has characters that no key has")
    remember([text])
    return text
