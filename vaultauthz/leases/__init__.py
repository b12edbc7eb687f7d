"""The keeper: the threads that run the lease machines and publish credentials."""
