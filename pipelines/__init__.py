"""From raw text to micro-batches: readers, cleaning, tokens, blanks, packing, the token store and the training feed."""
