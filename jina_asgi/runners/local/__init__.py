"""An Executor in this process: made, called, closed. It reads no environment and knows no other process."""
