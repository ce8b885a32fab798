"""The reads of the observer that only a diagnosis needs."""
