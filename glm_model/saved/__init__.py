"""Models as files: our folders, and the authors' checkpoints."""
