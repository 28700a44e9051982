"""Forecasts against what came true."""
