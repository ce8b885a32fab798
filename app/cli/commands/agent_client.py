"""Client of the HTTP API of a running agent, for the commands; sends HEAL_TOKEN if set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import httpx2
import typer
from pydantic import BaseModel, SecretStr, ValidationError

from app.cli.commands.errors import CommandFailed
from app.config import Settings
from app.wire.headers import SANDBOX_HEADER

_TIMEOUT_SECONDS = 10.0

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningAgent:
    """Address and token of a running agent."""

    base: str
    required: bool
    """The address was given explicitly: no response is a failure."""
    token: SecretStr | None = field(repr=False)
    _labelled: list[str] = field(default_factory=list, repr=False)

    @property
    def _speaks_tls(self) -> bool:
        """Reading the system's certificate authorities takes longer than a request that needs none."""
        return not self.base.startswith("http://")

    async def ask(
        self,
        path: str,
        parameters: dict[str, str] | None = None,
        *,
        method: str = "GET",
        body: BaseModel | None = None,
    ) -> httpx2.Response | None:
        """The response; None when nothing listens there and the agent is not required."""
        content = None if body is None else body.model_dump_json(exclude_none=True)
        headers = {} if body is None else {"Content-Type": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token.get_secret_value()}"
        try:
            async with httpx2.AsyncClient(
                timeout=_TIMEOUT_SECONDS, trust_env=False, verify=self._speaks_tls
            ) as client:
                reply = await client.request(
                    method,
                    self.base.rstrip("/") + path,
                    params=parameters or {},
                    content=content,
                    headers=headers,
                )
        except httpx2.ConnectError as error:
            if self.required:
                raise CommandFailed(f"no agent answers at {self.base}; start one with `heal run`") from error
            return None
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise CommandFailed(
                f"the request to the agent at {self.base} failed: {error or type(error).__name__}"
            ) from error
        self._label(reply)
        return reply

    def _label(self, reply: httpx2.Response) -> None:
        """Print once, beside the output, that the answers come from a sandbox."""
        if SANDBOX_HEADER in reply.headers and not self._labelled:
            self._labelled.append(SANDBOX_HEADER)
            typer.echo(f"sandbox at {self.base}: simulated cluster", err=True)

    def parsed(self, model: type[Model], reply: httpx2.Response) -> Model:
        """The parsed response; raises `CommandFailed` with the detail of an error response."""
        if not reply.is_success:
            try:
                detail = str(reply.json()["detail"])
            except (ValueError, KeyError, TypeError):
                detail = reply.text[:200]
            unknown = reply.status_code == httpx2.codes.UNAUTHORIZED
            hint = " Set HEAL_TOKEN." if unknown and self.token is None else ""
            raise CommandFailed(f"the agent at {self.base} answered {reply.status_code}: {detail}{hint}")
        try:
            return model.model_validate_json(reply.content)
        except ValidationError as error:
            raise CommandFailed(
                f"the response from {self.base} is not from this agent, or from another version of it "
                f"({error.error_count()} fields do not fit); name the agent's address with --url"
            ) from error


def running_agent(settings: Settings, url: str | None) -> RunningAgent:
    """The agent at `url`, else the one that these settings start on this machine."""
    return RunningAgent(
        base=url or default_url(settings), required=url is not None, token=settings.heal_token
    )


def address_option(settings: Settings, url: str | None) -> str:
    """` --url ADDRESS` for a printed command; empty where these settings lead there anyway."""
    return f" --url {url}" if url is not None and url.rstrip("/") != default_url(settings) else ""


def default_url(settings: Settings) -> str:
    """The address of an agent with these settings, from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.listens_on, settings.listens_on)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
