"""What is measured on data and written into the bundle."""
