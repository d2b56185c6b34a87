"""A camera's worker: a process of its own that opens one source and hands frames over, and that may be killed."""
