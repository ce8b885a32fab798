"""The usual levels of a service: a baseline of each metric, and deviations from it."""
