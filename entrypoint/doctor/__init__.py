"""What can be known before the weights are loaded: every problem at once, each with the change that fixes it."""
