"""The agent's own metrics: what one process counts, and what the database says of all of them."""
