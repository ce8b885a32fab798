"""Incidents: reading and listing them, the records they belong to, and what the loop saves."""
