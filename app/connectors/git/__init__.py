"""The repository behind a GitOps controller: a revert on a branch of its own, and a request to merge it."""
