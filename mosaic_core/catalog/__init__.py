"""What is known of every analysis, run, product, score and alert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mosaic_core.catalog.catalog import Catalog as Catalog


def __getattr__(name: str) -> Any:
    if name == "Catalog":
        from mosaic_core.catalog.catalog import Catalog

        return Catalog
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
