"""Examples for people and for other programs: pages, histograms, Parquet."""
