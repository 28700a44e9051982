"""HEALPix geometry and neighbours."""
