"""States on disk: the shipped restart, and checkpoints of a run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable
from mosaic_core.simulation.model import FIELDS, State
from mosaic_core.simulation.planet import find_planet
from mosaic_core.simulation.transforms import GRIDS, Array

VERSION: Final = 2
"""Of the model and of this file; a change that alters trajectories is a new one."""

FOLDER: Final = Path(__file__).parent / "restarts"
_ARRAYS: Final = ("current", "previous", "forcing")
_GARBLED: Final = (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Restart:
    """A state with what it is a state of. `valid_time` is that of step 0 of the run."""

    planet: str
    truncation: int
    valid_time: datetime
    state: State
    sha256: str


def shipped(planet: str, truncation: int) -> Path:
    """The restart in this package.

    Raises:
        ConfigurationError: unknown planet.
        AnalysisMissing: none is shipped for this planet at this truncation.
    """
    path = FOLDER / f"{find_planet(planet).name}-T{truncation}.npz"
    if not path.is_file():
        there = sorted(p.stem for p in FOLDER.glob("*.npz"))
        raise AnalysisMissing(
            f"no restart of {planet} at T{truncation} is shipped",
            f"one of {', '.join(there)}",
            "name one of them, or make one: "
            f"python -m mosaic_core.simulation.spinup --planet {planet} --truncation {truncation}",
        )
    return path


def write(path: Path, restart: Restart) -> None:
    """Write atomically: a reader sees the whole file or none."""
    arrays = {n: a for n in _ARRAYS if (a := getattr(restart.state, n)) is not None}
    header = {
        "version": VERSION,
        "planet": restart.planet,
        "truncation": restart.truncation,
        "valid_time": restart.valid_time.isoformat(),
        "step": restart.state.step,
        "sha256": _digest(arrays),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=np.array(json.dumps(header)), **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(buffer.getvalue())
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def read(path: Path) -> Restart:
    """Read and verify a file of `write`.

    Raises:
        AnalysisMissing: no such file.
        AnalysisUnreadable: cut short, altered, or of another version.
        ConfigurationError: it is of a planet that is not known here.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            header = dict(json.loads(str(stored["header"])))
            arrays = {name: stored[name] for name in _ARRAYS if name in stored.files}
        if header.get("version") != VERSION:
            raise AnalysisUnreadable(
                f"{path} is of version {header.get('version')}",
                f"version {VERSION}",
                "make it again with this version: python -m mosaic_core.simulation.spinup",
            )
        planet = find_planet(header["planet"]).name
        truncation, sha256 = int(header["truncation"]), str(header["sha256"])
        time = datetime.fromisoformat(header["valid_time"]).astimezone(UTC)
        step = int(header["step"])
    except FileNotFoundError as error:
        raise AnalysisMissing(f"no restart {path}", "a restart file") from error
    except (OSError, *_GARBLED) as error:
        raise AnalysisUnreadable(
            f"{path} cannot be read ({type(error).__name__}: {error})",
            "a whole restart file of the simulation",
            "fetch or make it again with python -m mosaic_core.simulation.spinup",
        ) from error
    _check(path, truncation, sha256, arrays)
    return Restart(planet, truncation, time, State(step, **arrays), sha256)


def _check(path: Path, truncation: int, sha256: str, arrays: dict[str, Array]) -> None:
    shape = (truncation + 1, 2, FIELDS, truncation + 2)
    found = arrays["current"].shape if "current" in arrays else None
    if truncation not in GRIDS or found != shape:
        raise AnalysisUnreadable(
            f"{path} holds coefficients {found} for T{truncation}", f"{shape}", "make it again"
        )
    digest = _digest(arrays)
    if digest != sha256:
        raise AnalysisUnreadable(
            f"{path} has sha256 {digest[:12]}...", f"{sha256[:12]}...", "fetch it again"
        )
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise AnalysisUnreadable(
            f"{path}: NaN or infinite in {', '.join(broken)}", "finite numbers", "make it again"
        )


def _digest(arrays: dict[str, Array]) -> str:
    sha = hashlib.sha256()
    for name in _ARRAYS:
        if name in arrays:
            sha.update(name.encode())
            sha.update(np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return sha.hexdigest()
