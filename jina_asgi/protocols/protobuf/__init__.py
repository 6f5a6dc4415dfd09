"""Jina's requests and docarray's documents as protobuf: the messages, the codec of docs, and their conversion to calls.

Needs protobuf, of the extra `grpc`; only this folder and gRPC's import it at the top.
"""
