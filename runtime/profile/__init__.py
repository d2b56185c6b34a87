"""Listens to a gate at work: named spans of time, the machine's sensors, what one run gave."""
