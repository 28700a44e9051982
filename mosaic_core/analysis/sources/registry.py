"""Which kinds of source there are. Each is imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from mosaic_core.analysis.sources.base import Source
from mosaic_core.errors import ConfigurationError

Factory = Callable[[Mapping[str, Any]], Source]

_FACTORIES: Final[dict[str, Factory | str]] = {
    "zarr": "mosaic_core.analysis.sources.zarr_archive:ZarrSource.from_settings",
    "grib": "mosaic_core.analysis.sources.grib_folder:GribSource.from_settings",
    "ecmwf-open-data": "mosaic_core.analysis.sources.open_data:OpenDataSource.from_settings",
    "simulated": "mosaic_core.simulation.source:SimulatedSource",
}


def register(kind: str, factory: Factory | str) -> None:
    """Add a kind of source: a callable that takes its settings, or `module:attribute` of one.

    Raises:
        ConfigurationError: the kind is taken.
    """
    if kind in _FACTORIES and _FACTORIES[kind] != factory:
        raise ConfigurationError(f"source kind {kind!r} is there already", "another name")
    _FACTORIES[kind] = factory


def make_source(settings: Mapping[str, Any], where: str = "source") -> Source:
    """Make the source that a mapping such as `{kind: zarr, url: ...}` describes.

    Args:
        where: names the file of the mapping in messages.

    Raises:
        ConfigurationError: no kind, an unknown one, or a setting that it does not have.
    """
    if not isinstance(settings, Mapping) or not isinstance(settings.get("kind"), str):
        raise ConfigurationError(
            f"{where}: {settings!r}", f"a mapping with `kind:`, one of {', '.join(_FACTORIES)}"
        )
    kind = settings["kind"]
    if kind not in _FACTORIES:
        near = difflib.get_close_matches(kind, _FACTORIES, n=1)
        raise ConfigurationError(
            f"{where}: unknown kind {kind!r}",
            f"one of {', '.join(_FACTORIES)}",
            f"did you mean {near[0]!r}?" if near else "",
        )
    factory = _FACTORIES[kind]
    if isinstance(factory, str):
        factory = _resolve(kind, factory)
    return factory({key: value for key, value in settings.items() if key != "kind"})


def _resolve(kind: str, path: str) -> Factory:
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"source {kind!r} is not part of this installation ({error})",
            f"the module {module}",
            "choose another kind of source, or install the whole distribution",
        ) from error
    for name in attribute.split("."):
        found = getattr(found, name)
    return found  # type: ignore[no-any-return]
