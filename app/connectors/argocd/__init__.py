"""Argo CD over its REST API: the applications that own workloads, and rollbacks through them."""
