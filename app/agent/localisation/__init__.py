"""Finds the service that is the root cause of a symptom, among services that call each other."""
