"""What the actions on objects of the simulated cluster need beside the change of one object."""
