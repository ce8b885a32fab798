"""Rollbacks of workloads that a GitOps controller owns: one intent of several steps, through the controller."""
