"""Statistics over many incidents, and the shadow scorecard of dry runs."""
