"""A server elsewhere as a Runner, over HTTP and by other transports. Nothing here serves."""
