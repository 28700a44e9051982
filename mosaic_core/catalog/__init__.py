"""What is known of every analysis, run, product, score and alert."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "Catalog":
        from mosaic_core.catalog.catalog import Catalog

        return Catalog
    raise AttributeError(name)
