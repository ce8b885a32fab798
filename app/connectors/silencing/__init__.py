"""Silences of the agent's own behind the ports of the cluster."""
