"""The start of a symptom: when it left its usual level, which changes match, and how long to wait."""
