"""The Client: builds requests, limits how many are open, handles the answers. Nothing here serves."""
