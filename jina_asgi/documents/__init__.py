"""Document classes to field plans, and documents to bytes and back. Nothing here knows calls or protocols."""
