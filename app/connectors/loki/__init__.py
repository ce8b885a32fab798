"""The log store Loki."""
