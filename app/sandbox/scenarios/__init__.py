"""What is played in the simulated world: the story of the demo, and the files of the healing benchmark."""
