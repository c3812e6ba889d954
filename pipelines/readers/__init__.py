"""Readers of corpora, one module each, found by name: SUFFIXES, an optional dataclass Options, and read().

`read(stream, *, path, options)` yields a Document, or a Rejected with the reason, for each thing that it finds in the
decompressed binary stream. Optional: `list_inputs(source)`, and `BINARY = True` for formats that are not text.
"""
