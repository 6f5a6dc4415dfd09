"""HTTP: requests to calls, results to bodies and event streams, and the OpenAPI document.

Asking another server is `remote`'s.
"""
