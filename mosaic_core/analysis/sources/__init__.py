"""Sources of analyses, by kind."""

from mosaic_core.analysis.sources.base import Source, fetch_analysis
from mosaic_core.analysis.sources.registry import make_source, register

__all__ = ["Source", "fetch_analysis", "make_source", "register"]
