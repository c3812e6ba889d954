"""Cleaned text to a token store, in <root>/stores and <root>/tokenizers."""
