"""The processes that a server instance has beside its web workers, and where they find each other.

Nothing here is imported by `import jina_asgi`: it needs a Unix.
"""
