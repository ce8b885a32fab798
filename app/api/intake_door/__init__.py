"""The fast door of intake: plain deliveries, answered before the web framework sees them.

`docs/intake.md` describes it. `door` is the ASGI layer, `reading` the formats that it understands.
Everything else goes unchanged to the ordinary routes.
"""
