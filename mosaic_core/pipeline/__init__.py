"""The path of a cycle: plain functions, one a stage, and the order they run in."""
