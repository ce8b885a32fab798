"""What is usual for a service: a baseline of each metric, and what is not as usual."""
