"""Addresses in settings: whether they can be used, and the passwords within them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr


def secrets_in(values: Iterable[object]) -> Iterator[str]:
    """The value of every secret, and every address, which may hold one."""
    for value in values:
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            yield from _passwords(text)
            # Of an address only the password is secret; of a webhook the whole URL is.
            if "://" not in text or is_address(text):
                yield text
        elif isinstance(value, dict):
            yield from secrets_in(value.values())
        elif isinstance(value, tuple | list | frozenset):
            yield from secrets_in(value)
        elif isinstance(value, str):
            yield from _passwords(value)


def _passwords(address: str) -> Iterator[str]:
    """The password of an address, encoded and decoded; empty without one."""
    try:
        password = urlsplit(address.strip()).password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)


def is_address(text: str) -> bool:
    """Whether it is an http or https address."""
    try:
        parts = urlsplit(text.strip())
        _ = parts.port  # raises ValueError when it is no port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def is_base_url(text: str) -> bool:
    """Whether paths can be appended to it: http or https, a host, and nothing after the path."""
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError when it is no port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https") and bool(parts.hostname) and not any(mark in text for mark in "?#@")
    )
