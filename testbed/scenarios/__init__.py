"""Scenarios of the healing benchmark on a real control plane.

API server, controllers, scheduler and admission are real; nodes, containers, autoscalers
and requests are played as the scenario describes them. Time passes `speed` times as fast
for the agent and for what is played, and the API server's times are read accordingly.
"""
