"""Which of several clusters the labels of an alert mean. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.guardrails.limits.clusters import UNNAMED, in_words
from app.config import Settings
from app.connectors.alerts.label_names import canonical_name
from app.connectors.text import shorten
from app.terms.clusters import cluster_names, clusters_of, of_cluster


class Unmapped(Exception):
    """Why the labels name no service that the agent acts on, and what would change that."""


def cluster_meant(
    given: Mapping[str, str], environments: tuple[str, ...], namespace: str | None, settings: Settings
) -> str:
    """The name of the cluster that the labels mean; raises `Unmapped` where they mean none or several.

    The labels of its alerts decide; where an alert has none of them, the environment, else
    the namespace, if it is of one cluster. `given` are all labels by canonical name,
    `environments` the values of those that name one.
    """
    if not settings.clusters:
        return UNNAMED
    labels = {name: _labels(settings, name) for name in cluster_names(settings)}
    matching = [
        name
        for name, wanted in labels.items()
        if wanted and all(given.get(label) == value for label, value in wanted.items())
    ]
    most = max((len(labels[name]) for name in matching), default=0)
    best = [name for name in matching if len(labels[name]) == most]
    if len(best) > 1:
        raise Unmapped(f"its labels are those of {_and(best)}; add labels to alert_labels in CLUSTERS")
    if best:
        return best[0]
    naming = sorted({label for wanted in labels.values() for label in wanted} & given.keys())
    if naming:
        named = ", ".join(f"{label}={shorten(given[label], 80)}" for label in naming)
        raise Unmapped(f"no connected cluster has the labels {named}; correct alert_labels in CLUSTERS")
    return _by_place(environments, namespace, settings)


def _by_place(environments: tuple[str, ...], namespace: str | None, settings: Settings) -> str:
    names, clusters = cluster_names(settings), clusters_of(settings)
    named = {clusters.of(one) for one in environments if one in clusters.environments}
    if len(named) == 1:
        return named.pop()
    having = [n for n in names if namespace in of_cluster(settings, n).environment_namespaces.values()]
    if len(having) > 1:
        raise Unmapped(
            f"namespace {namespace} is in {_and(having)}, and no label names the cluster; "
            "add the label of alert_labels in CLUSTERS to the alert"
        )
    if having:
        return having[0]
    if UNNAMED in names:
        return UNNAMED
    raise Unmapped("no label names the cluster; add the label of alert_labels in CLUSTERS to the alert")


def _labels(settings: Settings, name: str) -> dict[str, str]:
    given = of_cluster(settings, name).alert_home_labels
    return {canonical_name(label): value for label, value in given.items()}


def _and(names: list[str]) -> str:
    return " and ".join(map(in_words, names))
