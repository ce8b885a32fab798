"""Cookies of people who sign in: no script reads them, no other site uses them, none travels in the clear."""

from __future__ import annotations

from datetime import timedelta

from starlette.responses import Response

from app.config import Settings

SESSION_COOKIE = "heal_session"


def set_cookie(
    answer: Response,
    settings: Settings,
    name: str,
    value: str,
    *,
    path: str = "/",
    lifetime: timedelta | None,
) -> None:
    """Have the browser keep it; without a lifetime until it is closed."""
    answer.set_cookie(
        name,
        value,
        max_age=None if lifetime is None else int(lifetime.total_seconds()),
        path=path,
        secure=settings.reached_by_https,
        httponly=True,
        samesite="lax",
    )


def forget_cookie(answer: Response, settings: Settings, name: str, *, path: str = "/") -> None:
    """Have the browser drop it."""
    answer.delete_cookie(name, path=path, secure=settings.reached_by_https, httponly=True, samesite="lax")
