"""The four cluster ports over the simulated world, each a class of its own as the ports are.

They obey the same contract suite as the Kubernetes connector. Every message
that a person may read says that this is a simulation where that matters.
"""

from __future__ import annotations

from app.sandbox.cluster.changes import SandboxRehearsal, SandboxWriter
from app.sandbox.cluster.logs import SandboxLogs
from app.sandbox.cluster.ports import SandboxCluster
from app.sandbox.cluster.reader import SandboxReader
from app.sandbox.cluster.views import IRREVERSIBLE
from app.sandbox.cluster.watch import SandboxWatch

__all__ = [
    "IRREVERSIBLE",
    "SandboxCluster",
    "SandboxLogs",
    "SandboxReader",
    "SandboxRehearsal",
    "SandboxWatch",
    "SandboxWriter",
]
