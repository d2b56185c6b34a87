"""The operations of the antibody: project, mutate, score, select, act.

`reference` defines each of them in a few lines of NumPy; every other file does the same work faster.
"""
