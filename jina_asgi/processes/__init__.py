"""The processes of a server instance besides its web workers, and how they find each other.

Nothing here is imported by `import jina_asgi`: it needs Unix.
"""
