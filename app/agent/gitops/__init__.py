"""Rollbacks of workloads that a GitOps controller owns, as one intent of several steps."""
