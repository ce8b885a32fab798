"""What was released with a workload: the records of its release tool, and migrations of data."""
