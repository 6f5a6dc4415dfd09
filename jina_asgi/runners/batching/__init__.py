"""Dynamic batching: when a batch starts, what is in it, and each answer back to its caller.

The modules with an underscore decide; the others wait and call.
"""
