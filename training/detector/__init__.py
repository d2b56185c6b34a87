"""Trains the default face detector: scenes made of photos, labelled by a teacher; `trainer.train` is the way in."""
