"""The revert as a pull request at GitHub, or a merge request at GitLab, over REST.

The branch is pushed first. A request for it that exists already is the one of an
interrupted attempt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import msgspec

from app.agent.ids import JsonObject
from app.agent.ports.gitops import RepositoryWriter, RevertRequest
from app.connectors.git.branch import branch_of
from app.connectors.http import HttpPeer
from app.connectors.text import shorten
from app.errors import PermanentError, TransientError, UnknownOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """How one service lists and opens requests to merge a branch."""

    title: str
    requests: str
    """The path of the requests, with `{project}`."""
    encoded: bool
    """The project's path is one segment, with its slashes encoded."""
    opened: str
    """The state of a request that is open, as the query names it."""
    source: str
    target: str
    body: str
    """The names of the fields for both branches and the text."""
    address: str
    """The field of an answer with the address for people."""

    def path(self, repository: str) -> str:
        """The path of the requests of a repository."""
        project = urlsplit(repository).path.strip("/").removesuffix(".git")
        return self.requests.format(project=quote(project, safe="") if self.encoded else project)


GITHUB = Forge(
    title="GitHub",
    requests="/repos/{project}/pulls",
    encoded=False,
    opened="open",
    source="head",
    target="base",
    body="body",
    address="html_url",
)
GITLAB = Forge(
    title="GitLab",
    requests="/api/v4/projects/{project}/merge_requests",
    encoded=True,
    opened="opened",
    source="source_branch",
    target="target_branch",
    body="description",
    address="web_url",
)


class PullRequestWriter:
    """`RepositoryWriter` that pushes a branch and asks people to merge it."""

    def __init__(self, forge: Forge, peer: HttpPeer, branches: RepositoryWriter) -> None:
        self._forge = forge
        self._peer = peer
        self._branches = branches

    async def find(self, request: RevertRequest) -> str | None:
        forge = self._forge
        branch = branch_of(request)
        owner = urlsplit(request.repository).path.strip("/").partition("/")[0]
        source = branch if forge is GITLAB else f"{owner}:{branch}"
        query = {"state": forge.opened, forge.source: source}
        reply = await self._peer.send("GET", forge.path(request.repository), params=query)
        if not reply.ok:
            raise self._peer.refusal(reply)
        found = _decoded(reply.body)
        if not isinstance(found, list):
            raise PermanentError(f"unexpected response from {forge.title} to a list of requests")
        return next((self._words(one) for one in found if isinstance(one, dict)), None)

    async def open(self, request: RevertRequest) -> str:
        if await self._branches.find(request) is None:
            await self._branches.open(request)
        found = await self.find(request)
        if found is not None:
            return found
        forge = self._forge
        body: JsonObject = {
            "title": request.title,
            forge.source: branch_of(request),
            forge.target: request.target_revision,
            forge.body: request.body,
        }
        try:
            reply = await self._peer.send(
                "POST", forge.path(request.repository), json_body=json.dumps(body).encode()
            )
        except TransientError as error:
            raise UnknownOutcome(str(error)) from None
        if not reply.ok:
            raise self._peer.refusal(reply)
        answer = _decoded(reply.body)
        return self._words(answer if isinstance(answer, dict) else {})

    def _words(self, answer: dict[str, object]) -> str:
        return f"{self._forge.title} request {shorten(str(answer.get(self._forge.address, '')), 300)}"


def _decoded(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
