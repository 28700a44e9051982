"""What a training begins with: its windows, its statistics, and the first weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from mosaic_core.model import checkpoint as model_files
from mosaic_core.model.checkpoint import ModelFile
from mosaic_core.model.config import ModelConfig
from mosaic_core.training import finetuning, statistics
from mosaic_core.training.archive import Archive
from mosaic_core.training.objective import Statistics
from mosaic_core.training.recipe import Period, Recipe
from mosaic_core.training.windows import Windows
from mosaic_core.training.world import World

STATISTICS = "statistics.npz"
_FIRST_NOISE = 0.1
"""Scale of the untrained noise weights: members that part before they are right make the loss of
two members swing between nothing (the truth lies between them) and twice the error."""


@dataclass(frozen=True)
class Beginning:
    """First weights with statistics, and what its owner should be told about them."""

    file: ModelFile
    statistics: Statistics
    notes: tuple[str, ...] = ()


def open_windows(recipe: Recipe, config: ModelConfig) -> tuple[Windows, Windows]:
    """Windows of training and of validation.

    Raises:
        ConfigurationError, AnalysisMissing, AnalysisUnreadable: as `Archive` and `Windows`.
    """
    data = recipe.data
    inputs = Archive(data.inputs, config.channel_set, config.lat_lon)
    targets = inputs
    if data.targets is not None:
        targets = Archive(data.targets, config.channel_set, config.lat_lon)

    def windows(period: Period, steps: int) -> Windows:
        return Windows(
            data, period, inputs, targets, config.step_hours, config.history, steps, recipe.seed
        )

    return windows(data.train, recipe.longest), windows(data.validation, recipe.validation_steps)


def begin(
    recipe: Recipe, config: ModelConfig, folder: Path, windows: Windows, world: World
) -> Beginning:
    """Random weights, or those of `start_from` adapted to this variant.

    Statistics that have to be measured are kept in the folder, for resuming and other processes.

    Raises:
        CheckpointError: `start_from` or the static fields do not fit.
    """

    def measured() -> Statistics:
        path = folder / STATISTICS
        if world.first and not path.exists():
            step = timedelta(hours=config.step_hours)
            found = statistics.measure(windows, recipe.data.statistics_samples, step)
            statistics.write(path, found)
        world.barrier()
        return statistics.read(path)

    if recipe.start_from is not None:
        start = finetuning.adapted(config, model_files.read_model(Path(recipe.start_from)))
        change = start.file.change if start.file.change is not None else measured().change
        file = replace(start.file, change=change)
        copied = f"{len(start.copied)} parameters copied from {recipe.start_from}"
        return Beginning(file, Statistics(file.mean, file.std, change), (copied, *start.notes))
    found = measured()
    static = model_files.read_static(_static_path(recipe), config)
    file = model_files.untrained(config, found.mean, found.std, static, recipe.seed)
    for name, value in file.weights.items():
        if name.endswith(".noise_bias.weight"):
            value.mul_(_FIRST_NOISE)
    return Beginning(replace(file, change=found.change), found)


def _static_path(recipe: Recipe) -> Path:
    if recipe.static is not None:
        return Path(recipe.static)
    return Path(recipe.data.inputs).parent / "static.npz"
