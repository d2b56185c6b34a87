"""From camera frames to gate decisions. Read `pipeline` first: it names every stage in order."""
