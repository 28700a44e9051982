"""The training loop: read ahead, rollout, loss, update; checkpoints, validation, NaN stops it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mosaic_core.errors import TrainingError
from mosaic_core.model import checkpoint as model_files
from mosaic_core.model.checkpoint import ModelFile
from mosaic_core.model.config import ModelConfig
from mosaic_core.model.network import Mosaic
from mosaic_core.training import resume
from mosaic_core.training.beginning import begin, open_windows
from mosaic_core.training.card import Record, card
from mosaic_core.training.log import Log, Update, put, written
from mosaic_core.training.objective import Objective, step_phases, window_noise
from mosaic_core.training.optimizer import optimizer
from mosaic_core.training.picture import loss_picture
from mosaic_core.training.recipe import Phase, Recipe
from mosaic_core.training.resume import TrainingState
from mosaic_core.training.schedule import learning_rate
from mosaic_core.training.spectrum import measure_scale
from mosaic_core.training.validation import Scores, validate
from mosaic_core.training.windows import Window, read_ahead
from mosaic_core.training.world import World

__all__ = ["MODEL", "Listener", "Trainer", "Update", "World"]

MODEL: Final = "model.safetensors"
CARD: Final = "card.md"
PICTURE: Final = "loss.png"
_NOISE: Final = "noise_generator.to_noise.weight"
_OVERFLOWS = 20
"""Consecutive float16 updates without finite gradients after which training stops."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listener:
    """Who is told how training comes along; only the first process tells."""

    update: Callable[[Update], None] = lambda update: None
    validation: Callable[[int, Scores], None] = lambda update, scores: None


class Trainer:
    """Trains one recipe in one folder.

    Args:
        folder: of checkpoints, log and the finished model.
        go_on: whether a training that is there already is gone on with; otherwise it is an error.

    Attributes:
        notes: what the owner should know of the beginning or the checkpoint, a sentence each.

    Raises:
        ConfigurationError, AnalysisMissing, AnalysisUnreadable: recipe or archive.
        CheckpointError: `start_from` or static fields that do not fit.
        TrainingError: the folder holds another training.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, world: World, *, go_on: bool = False,
        listener: Listener | None = None,
    ) -> None:  # fmt: skip
        torch.set_flush_denormal(True)
        self.recipe, self.folder, self.world = recipe, folder, world
        self.listener = listener or Listener()
        self.config = ModelConfig.load(recipe.model)
        for phase in recipe.phases:
            recipe.share(phase, world.size)
        folder.mkdir(parents=True, exist_ok=True)
        self.log = Log(folder)
        found = resume.load(folder, recipe)
        if found is not None and not go_on:
            raise TrainingError(
                f"{folder} holds a training of {found.state.update} updates",
                "an empty folder",
                "add --resume to go on with it, or choose another folder",
            )
        self.train, self.validation = open_windows(recipe, self.config)
        start = begin(recipe, self.config, folder, self.train, world)
        self.statistics, self.static, self.tables = (
            start.statistics, start.file.static, start.file.tables
        )  # fmt: skip
        self.beginning, self.notes = start.notes, start.notes if found is None else found.notes
        version = model_files.version_of(self.config, start.file)
        network = model_files.load_model(self.config, start.file, version, world.device).network
        network.train().requires_grad_(True)
        scale = None
        if any(phase.spectral for phase in recipe.phases):
            scale = measure_scale(self.train, timedelta(hours=self.config.step_hours))
        self.objective = Objective(network, self.statistics, recipe, scale).to(world.device)
        self.ema = {k: v.detach().clone() for k, v in network.named_parameters()}
        self.optimizer = optimizer(network, recipe)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "float16")
        self.update, self._overflows = 0, 0
        self._saved = self._published = -1
        self._newest = resume.CHECKPOINT if found is None else found.name
        if found is not None:
            self._restore(found.state)
        self.parallel: nn.Module = self.objective
        if world.size > 1:
            self.parallel = DistributedDataParallel(self.objective, broadcast_buffers=False)

    @property
    def network(self) -> Mosaic:
        return self.objective.network

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end of the recipe, or until `stop` says so; both are saved.

        Returns:
            Whether the recipe is at its end.

        Raises:
            TrainingError: the loss or a gradient is not finite; the last good checkpoint stays.
        """
        if self.world.first:
            self.log.trim(self.update)
            for note in self.notes:
                self.log.note("note", self.update, text=note)
        requests = self.recipe.requests(self.update, self.world.rank, self.world.size)
        with closing(read_ahead(self.train, requests, self.recipe.data.readers)) as stream:
            while self.update < self.recipe.updates:
                if self._advance(stream.__next__, stop()):
                    self.save()
                    self.finish()
                    return False
        self.finish()
        return True

    def save(self) -> None:
        """Write a checkpoint and the model as it is now.

        Raises:
            TrainingError: the disk refuses; the checkpoints that are there stay.
        """
        skipped = self._skipped()
        if self.world.first and self._saved != self.update:
            state = TrainingState(
                self.update,
                {k: v.detach().cpu() for k, v in self.network.named_parameters()},
                {k: v.cpu() for k, v in self.ema.items()},
                self.optimizer.state_dict(),
                self.scaler.state_dict(),
                skipped,
            )
            resume.save(self.folder, self.recipe, state, keep=self._newest == resume.CHECKPOINT)
            self._publish(self.file(skipped))
        self._saved, self._newest = self.update, resume.CHECKPOINT

    def finish(self) -> None:
        """Write the model, its card and the picture of the loss, as they stand."""
        skipped = self._skipped()
        if self.world.first:
            if self._published != self.update:
                self._publish(self.file(skipped))
            put(self.folder / CARD, card(model_files.read_model(self.folder / MODEL)).encode())
            put(self.folder / PICTURE, loss_picture(self.log, self.recipe))

    def file(self, skipped: dict[str, str] | None = None) -> ModelFile:
        """The running mean of the weights, with statistics, static fields and how it was made."""
        recipe, s = self.recipe, self.statistics
        validations = self.log.entries("validation")
        made = Record(
            recipe, self.update, len(self.train.times), skipped or {}, self.beginning,
            validations[-1] if validations else None,
        )  # fmt: skip
        metadata = {
            "source": f"mosaic train {recipe.name}, {self.update} updates",
            "licence": recipe.licence,
            "attribution": recipe.attribution,
            "trained": "true",
            "training": made.json(),
        }
        weights = {k: v.cpu() for k, v in self._published_weights().items()}
        return ModelFile(weights, self.tables, s.mean, s.std, self.static, metadata, s.change)

    def _published_weights(self) -> dict[str, Tensor]:
        """The running mean; the noise enters through one linear map, which takes its factor."""
        weights = {k: v.detach().clone() for k, v in self.ema.items()}
        if self.config.perturbed:
            weights[_NOISE] *= self.recipe.noise
        return weights

    def _publish(self, file: ModelFile) -> None:
        with written(self.folder / MODEL):
            model_files.write_model(self.config, file, self.folder / MODEL)
        self._published = self.update

    def _skipped(self) -> dict[str, str]:
        """Windows that any process left out, by time."""
        return self.world.gathered({t.isoformat(): why for t, why in self.train.skipped.items()})

    def _advance(self, draw: Callable[[], Window], stop: bool) -> bool:
        """One update, with what is due after it; returns whether any process wants to stop."""
        recipe, began = self.recipe, time.perf_counter()
        phase, within = recipe.phase_at(self.update)
        windows = [draw() for _ in range(recipe.share(phase, self.world.size))]
        rate = learning_rate(phase, within)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss(windows, phase)
        asked = torch.tensor(float(stop), device=loss.device, dtype=loss.dtype)
        mean, stopping = self.world.mean(torch.stack((loss.detach(), asked))).tolist()
        if not math.isfinite(mean):
            raise self._stopped(f"the loss is {mean}")
        norm = self._apply(loss)
        self._overflows = 0 if math.isfinite(norm) else self._overflows + 1
        if self._overflows and (not self.scaler.is_enabled() or self._overflows > _OVERFLOWS):
            raise self._stopped(f"the gradient's norm is {norm}")
        self.update += 1
        if self.world.first:
            speed = phase.batch / (time.perf_counter() - began)
            self._told(Update(
                self.update, recipe.updates, phase.rollout, mean, norm, rate, round(speed, 3)
            ))  # fmt: skip
        if self.update % recipe.validate_every == 0 or self.update == recipe.updates:
            self._validate()
        if self.update % recipe.checkpoint_every == 0 or self.update == recipe.updates:
            self.save()
        return bool(stopping) and self.update < recipe.updates

    def _loss(self, windows: list[Window], phase: Phase) -> Tensor:
        device, recipe = self.world.device, self.recipe
        rollout, members = phase.rollout, recipe.members_of(phase)
        first = recipe.position(self.update) + self.world.rank * len(windows)
        noise = torch.stack(
            [
                window_noise(recipe.seed, first + i, members, rollout, self.config.noise_dim)
                for i in range(len(windows))
            ]
        )
        if members == 1:
            noise.zero_()
        history = torch.stack([w.history for w in windows]).to(device)
        targets = torch.stack([w.targets for w in windows]).to(device)
        phases = step_phases(self.network, [w.time for w in windows], rollout).to(device)
        loss: Tensor = self.parallel(history, targets, phases, noise.to(device), phase.spectral)
        return loss

    def _apply(self, loss: Tensor) -> float:
        """Backward, clip, update, running mean; returns the gradient's norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip))
        if math.isfinite(norm) or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if math.isfinite(norm):
            decay = min(self.recipe.ema, (1 + self.update) / (10 + self.update))
            with torch.no_grad():
                for name, value in self.network.named_parameters():
                    self.ema[name].lerp_(value, 1 - decay)
        return norm

    def _stopped(self, why: str) -> TrainingError:
        """The error of an update that cannot be; a checkpoint that led straight to it goes."""
        left = f"the last checkpoint in {self.folder} is good"
        if self._saved < 0:
            left = "there is no checkpoint yet"
        elif self._saved == self.update and self.world.first:
            left = f"the checkpoint of update {self.update} led to it: "
            left += resume.set_aside(self.folder, self._newest)
        self.world.barrier()
        return TrainingError(
            f"update {self.update + 1}: {why}",
            "a finite number",
            f"{left}. Lower the learning rate of the phase or `clip`, or train in float32 or "
            "bfloat16, and go on with --resume",
        )

    def _told(self, told: Update) -> None:
        entry = dict(vars(told))
        self.log.note("update", entry.pop("update"), **entry)
        self.listener.update(told)

    def _validate(self) -> None:
        if self.world.first:
            scores = validate(
                self.objective, self._published_weights(), self.validation, self.recipe
            )
            self.log.note("validation", self.update, **scores.as_dict())
            self.listener.validation(self.update, scores)

    def _restore(self, stored: TrainingState) -> None:
        own = {name: tuple(value.shape) for name, value in self.network.named_parameters()}
        theirs = {name: tuple(value.shape) for name, value in stored.weights.items()}
        if own != theirs:
            wrong = sorted(n for n in own.keys() | theirs.keys() if own.get(n) != theirs.get(n))
            raise TrainingError(
                f"the checkpoint in {self.folder} is of another model: {', '.join(wrong[:6])} "
                f"({len(wrong)} parameters) differ",
                f"the parameters of {self.config.name!r}",
                f"set back {self.recipe.model}, or start in another folder",
            )
        self.update = self._saved = stored.update
        with torch.no_grad():
            for name, value in self.network.named_parameters():
                value.copy_(stored.weights[name])
                self.ema[name] = stored.ema[name].to(self.world.device).clone()
        self.optimizer.load_state_dict(stored.optimizer)
        if stored.scaler:
            self.scaler.load_state_dict(stored.scaler)
        for text, reason in stored.skipped.items():
            self.train.skipped.setdefault(datetime.fromisoformat(text), reason)
