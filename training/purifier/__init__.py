"""Training of the purifier: warm-up on noise, then rehearsal against the current defence."""
