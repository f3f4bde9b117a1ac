"""Intervals and tests: shares, extremes over cells, gaps, several seeds. Arrays in, arrays out."""
