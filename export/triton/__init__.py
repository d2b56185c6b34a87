"""A bundle as a model repository of NVIDIA Triton, for sites whose cameras outgrow one machine."""
