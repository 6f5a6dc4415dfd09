"""What answers calls: an Executor in this process, and what wraps one. Protocols are elsewhere."""
