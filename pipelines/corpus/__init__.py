"""Raw files to cleaned text, in <root>/text."""
