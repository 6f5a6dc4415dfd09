"""What a server measures of itself, and how it is read: metrics and traces; nothing here calls a Runner or knows a protocol."""
