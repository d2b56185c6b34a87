"""What a profile says: percentiles, intervals, floors, and the files it is written to. Nothing here takes a time."""
