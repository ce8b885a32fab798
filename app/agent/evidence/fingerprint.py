"""The fingerprint of evidence, which identifies it across incidents.

Pure. The diagnosis records it; `app.agent.guardrails.limits` compares it with those of
earlier actions (promise 10).
"""

from __future__ import annotations

import hashlib
import json

from app.agent.evidence.facts import current_revision
from app.agent.models import Cause, Evidence


def fingerprint_of(evidence: Evidence, cause: Cause) -> str:
    """SHA-256 of service, cause, symptoms and running state: equal for the same evidence.

    Times, measured values and pod names are excluded because they never recur.
    """
    workload = evidence.workload
    current = current_revision(workload) if workload is not None else None
    content = {
        "service": [evidence.key.environment, evidence.key.service],
        "cause": cause,
        "conditions": sorted(evidence.conditions),
        "template": current.template_hash if current is not None else None,
        "replicas": workload.desired_replicas if workload is not None else None,
        "config_maps": sorted([c.name, c.content_hash] for c in workload.config_maps) if workload else [],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
