"""Forms of pages: read the fields, do it, and go back; every refusal is a page with the fix."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.api.bodies import read_form
from app.api.pages.pages import Pages
from app.api.problems import Problem, field_errors
from app.errors import Conflict, NotEntitled, TransientError


async def submitted(
    pages: Pages,
    request: Request,
    act: Callable[[Mapping[str, str]], Awaitable[str]],
    *,
    failed: str = "Nothing was recorded",
) -> Response:
    """Call `act` with the fields; it returns the address to go to. A refusal is shown as a page."""
    try:
        fields = await read_form(request, pages.container.settings.max_body_bytes)
        there = await act({name: value.strip() for name, value in fields.items()})
    except ValidationError as error:
        return await pages.message(422, failed, " ".join(in_sentences(error)))
    except Problem as problem:
        return await pages.message(problem.status, problem.title, problem.detail)
    except TransientError as error:
        return await pages.message(503, "Temporarily unavailable", f"{error}. Go back and retry.")
    except NotEntitled as error:
        return await pages.message(403, "Not permitted to answer", f"{error}.")
    except Conflict as error:
        return await pages.message(409, failed, f"{error}.")
    return RedirectResponse(there, status_code=303)


def in_sentences(error: ValidationError) -> list[str]:
    """What does not fit and how to fix it, one sentence for each field."""
    found = field_errors([dict(item) for item in error.errors(include_url=False)])
    return [f"{item.field} {item.message}: {item.fix}." for item in found]


def named(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields that were filled in."""
    return {name: value for name, value in fields.items() if value}
