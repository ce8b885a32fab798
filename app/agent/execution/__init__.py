"""The pure parts of carrying out an action: what follows from a decision, an undo, and the last checks."""
