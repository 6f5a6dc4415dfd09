"""Interprets a user's Executor class: its endpoints and options, and how it is found and created.

Nothing here runs a call.
"""
