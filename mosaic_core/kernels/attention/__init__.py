"""Attention over blocks of tokens: lists of blocks, branches and gates."""
