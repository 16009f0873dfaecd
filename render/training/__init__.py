"""Training: the step loop, losses, metrics, evaluation protocol and checkpoints."""
