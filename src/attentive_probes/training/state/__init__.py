"""What a run holds and keeps: checkpoints, best epochs, notes, what a resumed run needs."""
