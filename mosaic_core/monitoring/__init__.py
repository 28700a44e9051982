"""Watching a site: alerts and who is told of them, metrics, the state of its cycles."""
