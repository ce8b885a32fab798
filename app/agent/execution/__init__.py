"""The pure parts of carrying out an action: the result of a decision, an undo, and the last checks."""
