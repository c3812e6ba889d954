"""A Ray cluster, joined or started here: what it has room for, and the workers of Ray Train on it."""
