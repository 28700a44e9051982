"""Attention of points to their neighbours on another grid."""
