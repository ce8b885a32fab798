"""Healthy samples in narrow rows: the lane that records them, the rows, and what becomes of them."""
