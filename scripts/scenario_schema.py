"""Writes the JSON Schema of scenario files from their types: python -m scripts.scenario_schema."""

from __future__ import annotations

from pathlib import Path

from app.sandbox.scenarios.files import schema_text

SCHEMA = Path(__file__).parents[1] / "app" / "sandbox" / "scenarios" / "scenario.schema.json"


def main() -> None:
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    print(f"wrote {SCHEMA}")


if __name__ == "__main__":
    main()
