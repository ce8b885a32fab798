"""Lock-out counts wrong credentials by address, within bounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from app.api.security.lockout import Lockout

NOW = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_the_last_allowed_guess_locks_out_for_the_whole_time() -> None:
    """From then on, and not from the first one."""
    lockout = Lockout(attempts=2, length=MINUTE)
    lockout.failed("192.0.2.1", NOW)
    assert lockout.locked_for("192.0.2.1", NOW) is None
    lockout.failed("192.0.2.1", NOW + MINUTE / 2)
    assert lockout.locked_for("192.0.2.1", NOW + MINUTE) == MINUTE / 2
    assert lockout.locked_for("192.0.2.1", NOW + MINUTE * 1.5) is None


def test_guesses_far_apart_are_forgotten() -> None:
    """A person who mistypes once a day is never locked out."""
    lockout = Lockout(attempts=2, length=MINUTE)
    for day in range(10):
        lockout.failed("192.0.2.1", NOW + timedelta(days=day))
        assert lockout.locked_for("192.0.2.1", NOW + timedelta(days=day)) is None


def test_one_address_does_not_stand_for_another_save_in_one_ipv6_network() -> None:
    """An IPv6 network of 64 bits is one sender; an IPv4 address written as IPv6 is itself."""
    lockout = Lockout(attempts=1, length=MINUTE)
    lockout.failed("2001:db8::1", NOW)
    lockout.failed("192.0.2.1", NOW)
    assert lockout.locked_for("2001:db8::ffff", NOW) is not None
    assert lockout.locked_for("2001:db8:0:1::1", NOW) is None
    assert lockout.locked_for("::ffff:192.0.2.1", NOW) is not None
    assert lockout.locked_for("192.0.2.2", NOW) is None


def test_senders_without_an_address_share_one_count() -> None:
    """Behind a socket file no client has an address."""
    lockout = Lockout(attempts=1, length=MINUTE)
    lockout.failed(None, NOW)
    assert lockout.locked_for(None, NOW) is not None


def test_what_is_kept_is_bounded() -> None:
    """Guessing from ever new addresses fills no memory; the oldest are forgotten first."""
    lockout = Lockout(attempts=1, length=MINUTE)
    for number in range(20_000):
        lockout.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", NOW)
    assert len(lockout._counts) == 10_000
    assert lockout.locked_for("10.0.78.31", NOW) is not None
    assert lockout.locked_for("10.0.0.1", NOW) is None
