"""From training checkpoints to one portable bundle, and the proof that both compute the same."""
