"""The blanks of a segment: a pure function of (seed, epoch, segment)."""
