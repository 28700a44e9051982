"""The climatology of a simulated planet: mean and deviation at every point of a grid.

    python -m mosaic_core.verification.climatology ARCHIVE --output FILE

makes it of an archive's truth (`mosaic simulate`). The planets have no day and, `terra-seasons`
apart, no seasons, so that one mean serves all times.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mosaic_core.channels import Channel, Channels
from mosaic_core.dims import LATITUDE, LEVEL, LONGITUDE
from mosaic_core.errors import AnalysisMissing, AnalysisRejected, AnalysisUnreadable
from mosaic_core.grid import LatLonGrid

Array = NDArray[np.float64]

FORMAT: Final = "mosaic-climatology/1"
SHIPPED: Final = Path(__file__).parent / "climatologies"
_FINENESS: Final = 64
"""Steps of a stored value in a channel's typical deviation: the rounding adds 2e-5 of a variance,
the sampling of 1500 days some hundred times that."""

_BLOCK: Final = 40


@dataclass(frozen=True, eq=False)
class Climatology:
    """Climatological mean and standard deviation.

    Attributes:
        grid, channels: what the arrays are on.
        mean, deviation: (channel, latitude, longitude), physical units; deviation with N - 1.
        provenance: what it was made of: planet, model, seed, times.
    """

    grid: LatLonGrid
    channels: Channels
    mean: Array
    deviation: Array
    provenance: Mapping[str, str]

    def of(self, channels: Channels, grid: LatLonGrid) -> tuple[Array, Array] | None:
        """(mean, deviation) of these channels, (channel, latitude, longitude); None if not here."""
        if not grid.is_close(self.grid) or not set(channels.names) <= set(self.channels.names):
            return None
        order = [self.channels.index(name) for name in channels.names]
        return self.mean[order], self.deviation[order]

    def write(self, path: Path) -> None:
        """Write it as a compressed npz of rounded, differenced integers."""
        typical = np.sqrt((self.deviation**2).mean(axis=(1, 2)))
        step = np.where(typical > 0, typical, 1.0) / _FINENESS
        stored = {
            name: _differences(np.rint(values / step[:, None, None]).astype(np.int32))
            for name, values in (("mean", self.mean), ("deviation", self.deviation))
        }
        np.savez_compressed(
            path,
            allow_pickle=False,
            step=step,
            longitudes=np.array(self.grid.longitudes),
            latitudes=np.array(self.grid.latitudes),
            about=np.array(
                json.dumps(
                    {"format": FORMAT, "channels": list(self.channels.names)}
                    | {"provenance": dict(self.provenance)}
                )
            ),
            **{name: values.astype(_smallest(values)) for name, values in stored.items()},
        )

    @classmethod
    def read(cls, path: Path) -> Climatology:
        """Read a file that `write` made.

        Raises:
            AnalysisMissing: no such file.
            AnalysisUnreadable: it is cut short, altered or of another format.
        """
        if not path.is_file():
            raise AnalysisMissing(f"no climatology {path}", "a file made of an archive's truth")
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                if about["format"] != FORMAT:
                    raise ValueError(f"format {about['format']!r}")
                step = stored["step"][:, None, None]
                mean, deviation = (
                    np.cumsum(stored[name], axis=-1, dtype=np.int64) * step
                    for name in ("mean", "deviation")
                )
                grid = LatLonGrid(
                    tuple(stored["longitudes"].tolist()), tuple(stored["latitudes"].tolist())
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise AnalysisUnreadable(
                f"{path} is not a climatology: {error}",
                FORMAT,
                "make it again: `python -m mosaic_core.verification.climatology`",
            ) from error
        return cls(grid, Channels.parse(about["channels"]), mean, deviation, about["provenance"])


def shipped(provenance: Mapping[str, str], grid: LatLonGrid) -> Climatology | None:
    """The climatology in the package of a simulated planet on a grid; None if there is none.

    Args:
        provenance: of the source; planet and model must be those of the climatology.
    """
    for path in sorted(SHIPPED.glob("*.npz")):
        found = Climatology.read(path)
        same = all(found.provenance.get(k) == provenance.get(k) for k in ("planet", "model"))
        if same and found.grid.is_close(grid):
            return found
    return None


def from_archive(
    path: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Climatology:
    """Mean and deviation over all times of `truth.zarr` of an archive of the simulation.

    Args:
        path: the archive's folder, or its `truth.zarr`.
        on_progress: told how many of all times have been read.

    Raises:
        AnalysisMissing: no archive, or fewer than two whole times.
        AnalysisRejected: a value that is not finite; the channel and time are named.
    """
    import zarr

    path = path if path.name.endswith(".zarr") else path / "truth.zarr"
    if not (path / "zarr.json").is_file():
        raise AnalysisMissing(f"no archive {path}", "a folder that `mosaic simulate` has made")
    group: Any = zarr.open_group(path, mode="r", use_consolidated=False)
    times = int(group.attrs.get("complete_times", 0))
    if times < 2:
        raise AnalysisMissing(f"{path} has {times} whole times", "2 or more, best some thousands")
    channels = Channels.parse(group.attrs["channels"])
    grid = LatLonGrid(tuple(group[LONGITUDE][:].tolist()), tuple(group[LATITUDE][:].tolist()))
    levels = group[LEVEL][:].tolist() if LEVEL in group else []
    moments = _Moments((len(channels), grid.nlat, grid.nlon))
    for start in range(0, times, _BLOCK):
        stop = min(start + _BLOCK, times)
        whole = {name: group[name][start:stop] for name in channels.variables}
        planes = [_plane(whole[c.variable], c, levels) for c in channels]
        block = np.stack(planes, axis=1).astype(np.float64)
        _require_finite(block, channels, start, path)
        moments.add(block)
        on_progress(stop, times)
    provenance = {
        key: str(group.attrs[key])
        for key in ("planet", "model", "seed", "start", "step_hours")
        if key in group.attrs
    }
    return Climatology(
        grid, channels, moments.mean, moments.deviation, {**provenance, "times": str(times)}
    )


class _Moments:
    """Mean and deviation of blocks that pass, without cancellation (Chan et al. 1983)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.mean = np.zeros(shape)
        self._squares = np.zeros(shape)

    def add(self, block: Array) -> None:
        """A block (time, ...)."""
        count, mean = len(block), block.mean(0)
        total = self.count + count
        change = mean - self.mean
        self._squares += ((block - mean) ** 2).sum(0) + change**2 * (self.count * count / total)
        self.mean += change * (count / total)
        self.count = total

    @property
    def deviation(self) -> Array:
        return np.asarray(np.sqrt(self._squares / (self.count - 1)))


def _plane(values: Any, channel: Channel, levels: list[int]) -> Any:
    return values if channel.level is None else values[:, levels.index(channel.level)]


def _require_finite(block: Array, channels: Channels, start: int, path: Path) -> None:
    finite = np.isfinite(block).all(axis=(2, 3))
    if not finite.all():
        time, channel = (int(i[0]) for i in np.nonzero(~finite))
        raise AnalysisRejected(
            f"{path}: {channels[channel]} is not finite at time {start + time}", "finite values"
        )


def _differences(values: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.diff(values, axis=-1, prepend=np.zeros_like(values[..., :1]))


def _smallest(values: NDArray[np.int32]) -> type[np.signedinteger[Any]]:
    return np.int16 if np.abs(values).max() < 2**15 else np.int32


def main() -> None:
    parser = argparse.ArgumentParser(description="The climatology of a simulated planet.")
    parser.add_argument("archive", type=Path, help="folder that `mosaic simulate` has made")
    parser.add_argument("--output", type=Path, required=True, help="an .npz")
    given = parser.parse_args()

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{done} of {total} times")

    made = from_archive(given.archive, show)
    made.write(given.output)
    size = given.output.stat().st_size / 1000
    sys.stderr.write(f"\n{given.output}: {len(made.channels)} channels, {size:.0f} kB\n")


if __name__ == "__main__":
    main()
