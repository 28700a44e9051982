"""Prefect flows. Prefect is imported here and nowhere else."""
