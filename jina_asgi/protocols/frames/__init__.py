"""The framed protocol between processes: client and server. It neither starts nor finds processes."""
