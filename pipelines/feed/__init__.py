"""Token store to micro-batches, in a train worker."""
