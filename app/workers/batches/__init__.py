"""Looks at the batches of the connected clusters."""
