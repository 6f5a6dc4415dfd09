"""What asyncio lacks: owned tasks and groups of them, loops in threads, work beside the loop.

Nothing here knows documents, options or protocols.
"""
