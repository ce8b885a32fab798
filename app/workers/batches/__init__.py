"""Looks at the batches of the connected cluster."""
