"""Batches: Jobs and CronJobs with their runs, and when a failed run is repeated."""
