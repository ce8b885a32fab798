"""What a pod template asks for: hashes, fields by name, and which of them are code or configuration.

Pure; called by `views` and `patches`. Everything in a template counts,
less a short list of noise. Code is what a release ships: the containers with
their images, commands, ports and probes, how images are pulled, and the pod's
labels. All the rest is configuration, fields that a newer server knows included.
No value leaves this module, only digests and names of fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.agent.ids import Json, JsonObject
from app.connectors.kubernetes.fields import (
    digest,
    mapping,
    objects,
    text,
)

PREFIX = "self-healing-devops-agent/"
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
REVISION_HASH_LABEL = "controller-revision-hash"

_HASH_LABELS = frozenset({"pod-template-hash", "rollouts-pod-template-hash"})
"""Written by a controller into the template of each ReplicaSet."""
_NOISY_LABELS = _HASH_LABELS | {REVISION_HASH_LABEL, "pod-template-generation"}
"""Written by controllers over everything else in a template."""
_NOISY_ANNOTATIONS = frozenset({RESTARTED_AT})
"""A restart changes nothing of what runs; neither do the agent's own marks (`PREFIX`)."""

_CODE_OF_CONTAINER = frozenset(
    {
        "name",
        "image",
        "imagePullPolicy",
        "command",
        "args",
        "workingDir",
        "ports",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    }
)
_CODE_OF_SPEC = frozenset({"imagePullSecrets"})
_CODE_OF_METADATA = frozenset({"labels"})
CONTAINER_LISTS = ("containers", "initContainers")
ALL_ANNOTATIONS = ""
"""In place of a name: a container reads the annotations as a whole."""
_ANNOTATION_PATH = re.compile(r"metadata\.annotations(?:\['(?P<name>[^']+)'\])?")

FLAGS = PREFIX + "flags"
"""The annotation of a workload that names the ConfigMaps of its feature flags, separated by commas."""


def template_of(workload: JsonObject) -> JsonObject:
    """The pod template of a workload, ReplicaSet or ControllerRevision as a person wrote it.

    Without the controller's label, and without the word with which a ControllerRevision
    says how it is put back.
    """
    kept = mapping(workload, "data") if "spec" not in workload else workload
    template = {key: item for key, item in mapping(kept, "spec", "template").items() if key != "$patch"}
    metadata = dict(mapping(template, "metadata"))
    labels = {key: item for key, item in mapping(metadata, "labels").items() if key not in _HASH_LABELS}
    if "labels" in metadata:
        metadata["labels"] = labels
    if "metadata" in template:
        template["metadata"] = metadata
    return template


def template_hash(template: JsonObject) -> str:
    """Over all of it, a restart's annotation included: pods belong to exactly one."""
    return digest(template)


def code_hash(template: JsonObject) -> str:
    """Over what a release ships."""
    return digest(_part(template, code=True))


def config_hash(template: JsonObject) -> str:
    """Over everything else: environment, resources, volumes, security, scheduling, identity, annotations."""
    return digest(_part(template, code=False))


def template_fields(template: JsonObject) -> tuple[tuple[str, str], ...]:
    """Each field that counts, by a name for people, with a digest of its value; sorted by name."""
    return tuple(sorted((name, digest(value)) for name, value in _fields(template)))


def with_config_of(template: JsonObject, old: JsonObject) -> JsonObject:
    """The code of `template` with the configuration of `old`.

    Containers that came since keep their own configuration, with the volumes they mount.
    """
    spec = dict(mapping(template, "spec"))
    present = {text(item, "name") or "": item for item in objects(spec, "volumes")}
    volumes: dict[str, Json] = {text(item, "name") or "": item for item in objects(old, "spec", "volumes")}
    lists: dict[str, Json] = {}
    for kind in CONTAINER_LISTS:
        if kind not in spec:
            continue
        before = {text(item, "name"): item for item in objects(old, "spec", kind)}
        containers: list[Json] = []
        for container in objects(spec, kind):
            known = before.get(text(container, "name"))
            if known is None:
                for mount in objects(container, "volumeMounts"):
                    mounted = text(mount, "name") or ""
                    if mounted in present:
                        volumes.setdefault(mounted, present[mounted])
                containers.append(container)
            else:
                containers.append(_merged(container, known, _CODE_OF_CONTAINER))
        lists[kind] = containers
    wanted = _merged(
        _without(spec, {*CONTAINER_LISTS, "volumes"}),
        _without(mapping(old, "spec"), {*CONTAINER_LISTS, "volumes"}),
        _CODE_OF_SPEC,
    )
    if volumes:
        wanted["volumes"] = list(volumes.values())
    return {**template, "metadata": _metadata_with_config(template, old), "spec": {**wanted, **lists}}


def _metadata_with_config(template: JsonObject, old: JsonObject) -> JsonObject:
    """Labels stay; annotations go back, but for the noise, which is the present one's."""
    now, before = mapping(template, "metadata"), mapping(old, "metadata")
    metadata = _merged(now, before, _CODE_OF_METADATA)
    noise = {name: item for name, item in mapping(now, "annotations").items() if _is_noise(name)}
    annotations = {**_quiet_annotations(before), **noise}
    metadata.pop("annotations", None)
    return {**metadata, "annotations": annotations} if annotations else metadata


def _merged(code: JsonObject, config: JsonObject, fields: frozenset[str]) -> JsonObject:
    """The `fields` of one, and all others of the other."""
    return {
        **{name: item for name, item in code.items() if name in fields},
        **{name: item for name, item in config.items() if name not in fields},
    }


# ---------------------------------------------------------------- parts


def _part(template: JsonObject, *, code: bool) -> JsonObject:
    """One of the two parts that together are the whole template, less the noise."""
    metadata = mapping(template, "metadata")
    quiet: JsonObject = {
        **_without(metadata, {"labels", "annotations", "creationTimestamp"}),
        "labels": _quiet_labels(metadata),
        "annotations": _quiet_annotations(metadata),
    }
    spec = mapping(template, "spec")
    return {
        "template": None if code else _without(template, {"metadata", "spec"}) or None,
        "metadata": _chosen(quiet, _CODE_OF_METADATA, code),
        "spec": _chosen(_without(spec, set(CONTAINER_LISTS)), _CODE_OF_SPEC, code),
        **{
            kind: [
                {"name": container.get("name"), **_chosen(container, _CODE_OF_CONTAINER, code)}
                for container in objects(spec, kind)
            ]
            for kind in CONTAINER_LISTS
        },
    }


def _chosen(fields: JsonObject, code_fields: frozenset[str], code: bool) -> JsonObject:
    return {name: item for name, item in fields.items() if (name in code_fields) is code}


def _without(fields: JsonObject, names: set[str]) -> JsonObject:
    return {name: item for name, item in fields.items() if name not in names}


def _quiet_labels(metadata: JsonObject) -> JsonObject:
    return _without(mapping(metadata, "labels"), set(_NOISY_LABELS))


def _quiet_annotations(metadata: JsonObject) -> JsonObject:
    found = mapping(metadata, "annotations")
    return {name: item for name, item in found.items() if not _is_noise(name)}


def _is_noise(annotation: str) -> bool:
    return annotation in _NOISY_ANNOTATIONS or annotation.startswith(PREFIX)


def _fields(template: JsonObject) -> Iterator[tuple[str, Json]]:
    metadata, spec = mapping(template, "metadata"), mapping(template, "spec")
    yield from ((f"label {name}", item) for name, item in _quiet_labels(metadata).items())
    annotations = _quiet_annotations(metadata)
    read = _downward_annotations(spec) if annotations else frozenset()
    yield from ((f"annotation {name}", item) for name, item in annotations.items())
    yield from (
        (f"downward API of annotation {name}", item)
        for name, item in annotations.items()
        if name in read or ALL_ANNOTATIONS in read
    )
    yield from _without(spec, set(CONTAINER_LISTS)).items()
    for kind in CONTAINER_LISTS:
        for container in objects(spec, kind):
            of = text(container, "name") or "?"
            yield from ((f"{name} of {of}", item) for name, item in container.items() if name != "name")


def _downward_annotations(spec: JsonObject) -> frozenset[str]:
    """The annotations that containers read by environment or volume; `ALL_ANNOTATIONS` for a file of all."""
    volumes = objects(spec, "volumes")
    sources = [*volumes, *(one for volume in volumes for one in objects(volume, "projected", "sources"))]
    paths = [
        text(item, "fieldRef", "fieldPath")
        for one in sources
        for item in objects(one, "downwardAPI", "items")
    ]
    paths += [
        text(item, "valueFrom", "fieldRef", "fieldPath")
        for kind in CONTAINER_LISTS
        for container in objects(spec, kind)
        for item in objects(container, "env")
    ]
    found = (_ANNOTATION_PATH.fullmatch(path or "") for path in paths)
    return frozenset(one["name"] or ALL_ANNOTATIONS for one in found if one is not None)


# ---------------------------------------------------------------- references


def config_map_names(template: JsonObject) -> tuple[str, ...]:
    """The ConfigMaps that a template refers to, sorted."""
    found: set[str | None] = set(config_maps_read_at_start(template))
    for volume in objects(template, "spec", "volumes"):
        found.add(text(volume, "configMap", "name"))
        found.update(text(item, "configMap", "name") for item in objects(volume, "projected", "sources"))
    return tuple(sorted(item for item in found if item is not None))


def config_maps_of(workload: JsonObject) -> tuple[str, ...]:
    """The ConfigMaps that its template refers to, and those of feature flags that its annotation names."""
    named = (text(workload, "metadata", "annotations", FLAGS) or "").split(",")
    flags = {one.strip() for one in named} - {""}
    return tuple(sorted({*config_map_names(template_of(workload)), *flags}))


def config_maps_read_at_start(template: JsonObject) -> frozenset[str]:
    """Those that containers take into their environment: a running one does not see them change."""
    found: set[str | None] = set()
    for kind in CONTAINER_LISTS:
        for container in objects(template, "spec", kind):
            found.update(text(item, "configMapRef", "name") for item in objects(container, "envFrom"))
            found.update(
                text(item, "valueFrom", "configMapKeyRef", "name") for item in objects(container, "env")
            )
    return frozenset(item for item in found if item is not None)
