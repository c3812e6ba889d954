"""Fine-tuning, seen from the driver: what it is made of, and its run."""
