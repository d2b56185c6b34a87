"""Engines on disk: what one depends on, where it lies, and why it is refused. Nothing here imports TensorRT."""
