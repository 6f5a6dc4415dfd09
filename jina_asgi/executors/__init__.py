"""What a user's Executor class means: its endpoints and options, and how it is found and made.

Nothing here runs a call.
"""
