"""Who runs the networks: one face for ONNX Runtime on any device and for engines."""
