"""The audit log and the metrics: listeners, which the core knows nothing of."""
