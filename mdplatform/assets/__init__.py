"""The assets: what the platform materializes, per partition. Each is thin over `market`, `features` and `lake`."""
