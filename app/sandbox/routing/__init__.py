"""What carries requests in the simulated world."""
