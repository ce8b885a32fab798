"""What holds for single services: objectives, owner, dependencies, and how far the agent may go."""
