"""Prefect flows. Prefect is imported here and nowhere else."""

import logging

# Prefect hands these on to the run's log (PREFECT_LOGGING_EXTRA_LOGGERS), but sets no level.
for _name in ("mosaic_core", "flows"):
    logging.getLogger(_name).setLevel(logging.INFO)
