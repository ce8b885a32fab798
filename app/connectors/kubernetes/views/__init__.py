"""Turns API objects into the views that diagnosis, policy and verification look at.

Pure; called by the reader. No value of a ConfigMap, a Secret or an environment
variable gets into a view, only hashes of them.
"""

from __future__ import annotations

from app.connectors.kubernetes.views.owners import managed_by
from app.connectors.kubernetes.views.revisions import revision_number
from app.connectors.kubernetes.views.targets import MARKER, config_data_hash, target_state, update_strategy
from app.connectors.kubernetes.views.workload import WorkloadObjects, workload_view

__all__ = [
    "MARKER",
    "WorkloadObjects",
    "config_data_hash",
    "managed_by",
    "revision_number",
    "target_state",
    "update_strategy",
    "workload_view",
]
