"""The two ways to serve gRPC: ``native`` (fast, plaintext) and ``grpcio`` (also TLS)."""
