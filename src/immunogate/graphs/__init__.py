"""ONNX graphs written otherwise, to the same values: what export and calibration both do. Needs onnx, not torch."""
