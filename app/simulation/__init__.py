"""The agent over a simulated cluster: what the demo, the healing benchmark and the sandbox share."""
