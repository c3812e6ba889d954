"""A run, seen from the driver."""
