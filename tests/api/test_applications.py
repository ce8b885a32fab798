"""Applications of one process share their routes and nothing else."""

from __future__ import annotations

from pathlib import Path

from app.main import create_app
from tests.api.harness import DEPLOY, harness, make_settings


def test_each_application_answers_from_its_own_store(tmp_path: Path) -> None:
    """What one of them records, the other does not show."""
    (tmp_path / "other").mkdir()
    with harness(make_settings(tmp_path)) as one, harness(make_settings(tmp_path / "other")) as other:
        assert one.post("/events/deploy", json=DEPLOY).status_code == 202
        assert (one.incidents(), other.incidents()) == (1, 0)


def test_each_application_has_the_routes_of_its_settings(tmp_path: Path) -> None:
    """The routes of the sandbox stay its own, whichever application was made first."""
    settings = make_settings(tmp_path)
    plain = create_app(settings)
    sandbox = create_app(settings.model_copy(update={"sandbox": True}))
    again = create_app(settings)
    start = "/v1/sandbox/scenarios/{name}/start"
    assert [start in app.openapi()["paths"] for app in (plain, sandbox, again)] == [False, True, False]
