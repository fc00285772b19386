"""Traffic that drifts, and what the rules of ops/prometheus say of it."""
