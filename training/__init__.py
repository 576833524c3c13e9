"""Training scripts; nothing here is installed."""
