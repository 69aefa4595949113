"""What a run does: epochs, steps, losses, optimizers, the test."""
