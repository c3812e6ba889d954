"""What is not about GLM: configuration, errors, storage, tracking, console, the Ray cluster and Ray Train wiring."""
