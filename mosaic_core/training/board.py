"""TensorBoard files of a training, where the `tensorboard` package is installed."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any, Final

from mosaic_core.training.log import Update
from mosaic_core.training.validation import Scores

FOLDER: Final = "tensorboard"
ABSENT: Final = (
    "no TensorBoard files: the package is not installed (pip install 'mosaic-forecast[train]')"
)


class Board:
    """Writes scalars below `folder/tensorboard`; on resuming, what came after `update` is hidden.

    `ABSENT` is what to tell where `available` says no.
    """

    def __init__(self, folder: Path, update: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the packages below it
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer: Any = SummaryWriter(str(folder / FOLDER), purge_step=update + 1)

    def update(self, told: Update) -> None:
        for name in ("loss", "gradient_norm", "learning_rate", "windows_per_second"):
            self._writer.add_scalar(f"training/{name}", getattr(told, name), told.update)
        self._writer.add_scalar("training/rollout", told.rollout, told.update)

    def validation(self, update: int, scores: Scores) -> None:
        for step, value in enumerate(scores.crps, 1):
            self._writer.add_scalar(f"validation/crps/step_{step}", value, update)
        for name, values in scores.rmse.items():
            for step, value in enumerate(values, 1):
                ratio = value / max(scores.persistence[name][step - 1], 1e-30)
                self._writer.add_scalar(f"{name}/rmse_over_persistence/step_{step}", ratio, update)

    def close(self) -> None:
        self._writer.close()


def available() -> bool:
    return importlib.util.find_spec("tensorboard") is not None
