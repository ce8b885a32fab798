"""Rollbacks over the real GitOps servers: `make test-gitops`."""
