"""Readers of corpora, one module each, found by name: SUFFIXES, an optional dataclass Options, and read().

`read(stream, *, path, options)` yields a Document, or a Rejected with the reason, for each thing that it finds in the
decompressed binary stream. Optional: `list_inputs(source)`; `BINARY = True` for formats that are not text;
`SEEKABLE = True` for those that are read out of order, which get the plain file; `splittable(options)`, which says
whether every line is a record of its own, so that a large file may be read in ranges by many tasks; `count(stream)`,
the number of records where a file tells it, for plans from a sample.
"""
