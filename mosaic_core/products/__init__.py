"""Products of an ensemble forecast: statistics, maps, spectra; each product one small file."""
