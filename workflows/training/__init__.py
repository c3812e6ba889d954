"""What runs in a train worker."""
