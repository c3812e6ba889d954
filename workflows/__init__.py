"""The scripts that users start, and their recipes."""
