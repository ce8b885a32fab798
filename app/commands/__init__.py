"""What the `heal` command does, one module per command; `app.cli` only parses and reports.

Nothing here is imported before its command is called, so that `heal --help` is quick.
"""
