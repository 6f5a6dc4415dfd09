"""Jina's requests and docarray's documents as protobuf: the messages, the docs codec, and calls from and to them.

Needs protobuf, which the extra `grpc` brings; nothing outside of this folder and gRPC's imports it at the top.
"""
