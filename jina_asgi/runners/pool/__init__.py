"""Replicas side by side: which one gets a call, and how each is supervised.

Nothing here knows how a replica's process starts.
"""
