"""Operational ensemble weather forecasting with the Mosaic model.

Importing this package imports nothing heavy; each folder is imported when it is needed.
"""

__version__ = "0.1.0"
