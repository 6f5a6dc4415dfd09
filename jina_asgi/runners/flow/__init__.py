"""A Flow's graph: which nodes answer a call, and the documents between them.

Nothing here knows where a node runs.
"""
