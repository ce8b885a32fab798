"""Benchmarks of the agent's judgement: their file formats, how they are played, and how they are scored."""
