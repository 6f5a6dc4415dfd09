"""The framed protocol between processes, both halves. Nothing here starts or finds a process."""
