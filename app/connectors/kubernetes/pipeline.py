"""A deploy pipeline for `heal demo`: sets the image of a Deployment, with a kubeconfig of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.resources.apps_v1 import Deployment
from lightkube.types import PatchType

from app.agent.workload import ObjectRef
from app.errors import PermanentError, TransientError

_FIELD_MANAGER = "heal-demo"

SetImage = Callable[[ObjectRef, str], Awaitable[None]]
"""Sets the image of the first container, as `kubectl set image` does."""


@asynccontextmanager
async def pipeline(kubeconfig: Path) -> AsyncIterator[SetImage]:
    """A client with the rights of `kubeconfig`.

    Raises `PermanentError` when the API server refuses a change, and
    `TransientError` when it does not answer or the file cannot be read.
    """
    try:
        config = KubeConfig.from_file(kubeconfig)
        async with AsyncClient(config=config, field_manager=_FIELD_MANAGER) as client:

            async def set_image(ref: ObjectRef, image: str) -> None:
                try:
                    await _set_image(client, ref, image)
                except ApiError as error:
                    raise PermanentError(f"the pipeline of the demo may not change {ref}: {error}") from error

            yield set_image
    except (httpx2.HTTPError, ConfigError, OSError) as error:
        raise TransientError(f"{kubeconfig}: the cluster does not answer ({type(error).__name__})") from error


async def _set_image(client: AsyncClient, ref: ObjectRef, image: str) -> None:
    deployment = await client.get(Deployment, ref.name, namespace=ref.namespace)
    if deployment.spec is None or deployment.spec.template.spec is None:
        raise PermanentError(f"{ref} has no pod template")
    container = deployment.spec.template.spec.containers[0].name
    body = {"spec": {"template": {"spec": {"containers": [{"name": container, "image": image}]}}}}
    await client.patch(Deployment, ref.name, body, namespace=ref.namespace, patch_type=PatchType.STRATEGIC)
