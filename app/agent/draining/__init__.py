"""Draining a node: one intent of several steps, a cordon and then one eviction after the other."""
