"""gRPC in Jina's protocol, both halves: the services that answer, and what asks them.

Needs grpcio and protobuf, which the extra `grpc` brings: these modules are imported where gRPC is asked for.
"""
