"""`HEAD` answers as `GET` does, without the body, on every path that `GET` has."""

from __future__ import annotations

from fastapi.routing import APIRoute

from app.main import FOR_PEOPLE
from tests.api.harness import DEPLOY, Harness
from tests.api.stories import proposed

VARYING = {"date", "set-cookie", "location", "content-length"}
"""Headers that hold the moment, or a nonce of the single answer."""


def get_paths(api: Harness) -> list[str]:
    """Every path that answers `GET`, with an id that exists where there is one."""
    incident = api.run(proposed(api.container))
    signal = api.post("/events/deploy", json=DEPLOY).json()["signal_id"]
    ids = {"incident_id": incident, "signal_id": signal}
    paths = []
    for route in (route for module in FOR_PEOPLE for route in module.router.routes):
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            path = route.path
            for name in route.param_convertors:
                path = path.replace(f"{{{name}}}", ids.get(name, "unknown"))
            paths.append(path)
    return [*paths, "/openapi.json", "/static/style.css", "/static/swagger/swagger-ui.css", "/nothing/here"]


def test_every_path_answers_head_as_get(api: Harness) -> None:
    """The same status and headers, and nothing in the body: routes, pages, static files and refusals."""
    api.app.state.changes.close()  # its stream would not end by itself
    paths = get_paths(api)
    assert len(paths) > 15
    for path in paths:
        got, head = api.get(path), api.request("HEAD", path)
        assert head.status_code == got.status_code, path
        assert head.content == b"", path
        for name in set(got.headers) - VARYING:
            assert head.headers.get(name) == got.headers[name], (path, name)
        assert "content-length" in head.headers or "content-length" not in got.headers


def test_head_is_guarded_as_get_is(api: Harness) -> None:
    """A foreign host is refused, and a path without `GET` does not answer it."""
    assert api.request("HEAD", "/incidents", headers={"Host": "evil.example"}).status_code == 421
    assert api.request("HEAD", "/events/deploy").status_code == 405


def test_a_refused_method_lists_head_beside_get(api: Harness) -> None:
    """In `Allow`."""
    refused = api.request("DELETE", "/incidents")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
