"""gRPC in Jina's protocol: the server's services, and the client half.

Needs grpcio and protobuf, of the extra `grpc`: these modules are imported only if gRPC is used.
"""
