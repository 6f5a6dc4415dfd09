"""A pool of replicas: picks one for each call, and supervises each.

Independent of how a replica's process starts.
"""
