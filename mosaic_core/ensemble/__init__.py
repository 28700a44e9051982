"""Members of a forecast, streamed to the store and resumable."""
