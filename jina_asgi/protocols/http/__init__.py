"""HTTP: requests to calls, results to bodies and event streams, and the OpenAPI document.

The client half is in `remote`.
"""
