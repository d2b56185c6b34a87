"""From the networks of a bundle to TensorRT engines for the very device that runs them. Read `build` first."""
