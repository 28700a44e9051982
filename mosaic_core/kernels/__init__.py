"""Attention over lists of blocks and over neighbours: one function each, several backends."""
