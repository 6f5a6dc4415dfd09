"""What asyncio lacks: owned tasks, task groups, loops in threads, work in threads.

Nothing here knows documents, options or protocols.
"""
