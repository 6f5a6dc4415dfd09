"""A Flow's graph: which nodes answer a call, and the documents between them.

Independent of where a node runs.
"""
