"""SDS: hands credentials to Envoy ahead of requests, and anew when they change."""
