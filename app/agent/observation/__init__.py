"""What the observer reads for a diagnosis alone."""
