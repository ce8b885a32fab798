"""The start of a symptom: when it left its usual level, what fits that, and what is waited out."""
