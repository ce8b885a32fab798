"""Flux over its custom resources: the Kustomizations that own workloads, and rollbacks of their source."""
