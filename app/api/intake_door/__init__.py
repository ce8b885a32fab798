"""The fast door of intake: plain deliveries, answered before the web framework sees them.

`docs/intake.md` describes it. `door` is the ASGI layer, `reading` what it understands.
Everything else goes to the ordinary routes untouched.
"""
