"""The environment that a container is started with, as a kubelet builds it.

The stand-in kubelet notes it on the pod when it "starts" the container, so that
the sample fleet serves by that and not by what a ConfigMap holds later.
"""

from __future__ import annotations

import msgspec

from testbed.kubeapi import Api, ConfigMap, Container, KeyRef, Pod

_ANNOTATION = "testbed/environment"


class ConfigurationMissing(Exception):
    """A ConfigMap or key that the container needs does not exist; it cannot be created."""


async def read_environment(api: Api, namespace: str, container: Container) -> dict[str, str]:
    """ConfigMaps first, single variables over them. Raises `ConfigurationMissing` and `httpx2.HTTPError`."""
    found: dict[str, str] = {}
    for source in container.env_from:
        if source.config_map_ref is not None:
            found |= await _data(api, namespace, source.config_map_ref)
    for variable in container.env:
        ref = variable.value_from.config_map_key_ref if variable.value_from else None
        if ref is None:
            found[variable.name] = variable.value
            continue
        data = await _data(api, namespace, ref)
        if ref.key in data:
            found[variable.name] = data[ref.key]
        elif not ref.optional:
            raise ConfigurationMissing(f"couldn't find key {ref.key} in ConfigMap {namespace}/{ref.name}")
    return found


async def _data(api: Api, namespace: str, ref: KeyRef) -> dict[str, str]:
    found = await api.get(f"/api/v1/namespaces/{namespace}/configmaps/{ref.name}", ConfigMap)
    if found is None and not ref.optional:
        raise ConfigurationMissing(f'configmap "{ref.name}" not found')
    return found.data if found else {}


def noted(environment: dict[str, str]) -> dict[str, str]:
    """The annotation that remembers it."""
    return {_ANNOTATION: msgspec.json.encode(environment).decode()}


def environment_of(pod: Pod) -> dict[str, str] | None:
    """What was noted when the container started; None when it did not start yet."""
    text = pod.metadata.annotations.get(_ANNOTATION)
    return None if text is None else msgspec.json.decode(text, type=dict[str, str])
