"""Which cleaned documents go in, in <root>/selections."""
