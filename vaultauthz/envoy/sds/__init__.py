"""SDS: hands credentials to Envoy ahead of requests, and anew when they change.

``discovery`` serves the streams, ``secrets`` says what a name stands for, ``subscription``
is the protocol.
"""
