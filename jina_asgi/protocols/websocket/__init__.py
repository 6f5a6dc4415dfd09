"""WebSockets, both halves: the JSON protocol and Jina's binary one. How a call runs is the Runner's."""
