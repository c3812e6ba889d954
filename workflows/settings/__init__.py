"""From a recipe to settled values. No files are written, nothing runs."""
