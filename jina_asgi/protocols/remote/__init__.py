"""Runners and clients of a remote server, over HTTP and other transports. Nothing here serves."""
