"""alembic's script directory: `env.py`, and one file under `versions` for each change of the schema."""
