"""The training loop: read ahead, rollout, loss, update; checkpoints, validation, NaN stops it."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mosaic_core.errors import TrainingError
from mosaic_core.model import checkpoint as model_files
from mosaic_core.model.checkpoint import ModelFile
from mosaic_core.model.config import ModelConfig
from mosaic_core.model.network import Mosaic
from mosaic_core.training import resume, statistics
from mosaic_core.training.archive import Archive, Window, Windows, read_ahead
from mosaic_core.training.objective import Objective, Statistics, step_phases, window_noise
from mosaic_core.training.recipe import Recipe
from mosaic_core.training.resume import TrainingState
from mosaic_core.training.schedule import learning_rate
from mosaic_core.training.validation import Scores, validate

MODEL = "model.safetensors"
LOG = "log.jsonl"
_FIRST_NOISE = 0.1
"""Scale of the untrained noise weights: members that part before they are right make the loss of
two members swing between nothing (the truth lies between them) and twice the error."""

_OVERFLOWS = 20
"""Consecutive float16 updates without finite gradients after which training stops."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Update:
    """One update as it is told and logged; loss in standard deviations of a step's change."""

    update: int
    updates: int
    rollout: int
    loss: float
    gradient_norm: float
    learning_rate: float
    windows_per_second: float


@dataclass(frozen=True)
class Listener:
    """Who is told how training comes along; only the first process tells."""

    update: Callable[[Update], None] = lambda update: None
    validation: Callable[[int, Scores], None] = lambda update, scores: None


@dataclass
class World:
    """This process among those that `torchrun` started."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        return self.rank == 0


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """Join the processes of `torchrun`; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    chosen = model_files.pick_device(device)
    if chosen.type == "cuda" and size > 1:
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    if size == 1:
        yield World(device=chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(rank, size, chosen)
    finally:
        dist.destroy_process_group()


class Trainer:
    """Trains one recipe in one folder.

    Args:
        folder: of checkpoints, log and the finished model.
        resume_from: a checkpoint that is there is gone on with; otherwise it is an error.

    Raises:
        ConfigurationError, AnalysisMissing, AnalysisUnreadable: recipe or archive.
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
        folder.mkdir(parents=True, exist_ok=True)
        stored = resume.load(folder, recipe)
        if stored is not None and not go_on:
            raise TrainingError(
                f"{folder} holds a training of {stored.update} updates",
                "an empty folder",
                "add --resume to go on with it, or choose another folder",
            )
        self._open_data()
        file = self._initial_file()
        self.static = file.static
        network = model_files.load_model(
            self.config, file, model_files.version_of(self.config, file), world.device
        ).network
        network.train().requires_grad_(True)
        self.objective = Objective(network, self.statistics, recipe).to(world.device)
        self.ema = {k: v.detach().clone() for k, v in network.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=0.0, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "float16")
        self.update = 0
        if stored is not None:
            self._restore(stored)
        self.parallel: nn.Module = self.objective
        if world.size > 1:
            self.parallel = DistributedDataParallel(self.objective)

    @property
    def network(self) -> Mosaic:
        return self.objective.network

    def run(self) -> ModelFile:
        """Train to the end of the recipe, or of `stop_after`; returns what would be published.

        Raises:
            TrainingError: the loss or a gradient is not finite; the last checkpoint is good.
        """
        recipe, overflows = self.recipe, 0
        stream = read_ahead(self.train, self._requests(), recipe.data.readers)
        self._trim_log()
        while self.update < recipe.updates:
            began = time.perf_counter()
            phase, within = recipe.phase_at(self.update)
            count = self._share(phase.batch)
            windows = [next(stream) for _ in range(count)]
            rate = learning_rate(phase, within)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self._loss(windows, phase.rollout, phase.members or recipe.members)
            self._require_finite(loss)
            norm = self._apply(loss)
            if math.isfinite(norm):
                overflows = 0
            else:
                overflows += 1
                if not self.scaler.is_enabled() or overflows > _OVERFLOWS:
                    raise self._stopped(f"the gradient's norm is {norm}")
            self.update += 1
            self._told(loss, norm, rate, phase.rollout, phase.batch / (time.perf_counter() - began))
            if self.update % recipe.validate_every == 0 or self.update == recipe.updates:
                self._validate()
            if self.update % recipe.checkpoint_every == 0 or self.update == recipe.updates:
                self.save()
        return self.file()

    def save(self) -> None:
        """Write a checkpoint and the model as it is now."""
        if self.world.first:
            state = TrainingState(
                self.update,
                {k: v.detach().cpu() for k, v in self.network.named_parameters()},
                {k: v.cpu() for k, v in self.ema.items()},
                self.optimizer.state_dict(),
                self.scaler.state_dict(),
                {t.isoformat(): reason for t, reason in self.train.skipped.items()},
            )
            resume.save(self.folder, self.recipe, state)
            model_files.write_model(self.config, self.file(), self.folder / MODEL)

    def file(self) -> ModelFile:
        """The running mean of the weights, with statistics and static fields."""
        recipe = self.recipe
        metadata = {
            "source": f"mosaic train {recipe.name}, {self.update} updates",
            "licence": recipe.licence,
            "attribution": recipe.attribution,
            "trained": "true",
        }
        weights = {k: v.detach().cpu().clone() for k, v in self.ema.items()}
        s = self.statistics
        return ModelFile(weights, {}, s.mean, s.std, self.static, metadata, s.change)

    def _open_data(self) -> None:
        data, config = self.recipe.data, self.config
        inputs = Archive(data.inputs, config.channel_set, config.lat_lon)
        targets = inputs
        if data.targets is not None:
            targets = Archive(data.targets, config.channel_set, config.lat_lon)
        longest = max(phase.rollout for phase in self.recipe.phases)

        def windows(period: Any, steps: int) -> Windows:
            return Windows(
                data, period, inputs, targets, config.step_hours, config.history, steps,
                self.recipe.seed,
            )  # fmt: skip

        self.train = windows(data.train, longest)
        self.validation = windows(data.validation, self.recipe.validation_steps)

    def _initial_file(self) -> ModelFile:
        recipe = self.recipe
        if recipe.start_from is not None:
            file = model_files.read_model(Path(recipe.start_from))
            model_files.require_fit(self.config, file)
            change = file.change if file.change is not None else self._measured().change
            self.statistics = Statistics(file.mean, file.std, change)
            return file
        self.statistics = self._measured()
        static = model_files.read_static(self._static_path(), self.config)
        file = model_files.untrained(
            self.config, self.statistics.mean, self.statistics.std, static, recipe.seed
        )
        for name, value in file.weights.items():
            if name.endswith(".noise_bias.weight"):
                value.mul_(_FIRST_NOISE)
        return ModelFile(**{**vars(file), "change": self.statistics.change})

    def _static_path(self) -> Path:
        if self.recipe.static is not None:
            return Path(self.recipe.static)
        return Path(self.recipe.data.inputs).parent / "static.npz"

    def _measured(self) -> Statistics:
        path = self.folder / "statistics.npz"
        if self.world.first and not path.exists():
            step = timedelta(hours=self.config.step_hours)
            found = statistics.measure(self.train, self.recipe.data.statistics_samples, step)
            statistics.write(path, found)
        if self.world.size > 1:
            dist.barrier()
        return statistics.read(path)

    def _share(self, batch: int) -> int:
        if batch % self.world.size:
            raise TrainingError(
                f"a batch of {batch} windows on {self.world.size} processes",
                "a multiple of the processes",
                "change `batch`, or the processes of torchrun",
            )
        return batch // self.world.size

    def _requests(self) -> Iterator[tuple[int, int]]:
        """(window of the stream, steps) of this process, from the current update on."""
        n = 0
        for update in range(self.recipe.updates):
            phase, _ = self.recipe.phase_at(update)
            if update >= self.update:
                share = self._share(phase.batch)
                for i in range(share):
                    yield n + self.world.rank * share + i, phase.rollout
            n += phase.batch

    def _position(self) -> int:
        return sum(self.recipe.phase_at(u)[0].batch for u in range(self.update))

    def _loss(self, windows: list[Window], rollout: int, members: int) -> Tensor:
        device, config = self.world.device, self.config
        first = self._position() + self.world.rank * len(windows)
        noise = torch.stack(
            [
                window_noise(self.recipe.seed, first + i, members, rollout, config.noise_dim)
                for i in range(len(windows))
            ]
        )
        if members == 1:
            noise.zero_()
        history = torch.stack([w.history for w in windows]).to(device)
        targets = torch.stack([w.targets for w in windows]).to(device)
        phases = step_phases(self.network, [w.time for w in windows], rollout).to(device)
        loss: Tensor = self.parallel(history, targets, phases, noise.to(device))
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

    def _require_finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise self._stopped(f"the loss is {float(loss)}")

    def _stopped(self, why: str) -> TrainingError:
        return TrainingError(
            f"update {self.update + 1}: {why}",
            "a finite number",
            f"the last checkpoint in {self.folder} is good: lower the learning rate or `clip`, "
            "or train in float32 or bfloat16, and go on with --resume",
        )

    def _told(self, loss: Tensor, norm: float, rate: float, rollout: int, speed: float) -> None:
        mean = loss.detach().clone()
        if self.world.size > 1:
            dist.all_reduce(mean)
            mean /= self.world.size
        if not self.world.first:
            return
        told = Update(
            self.update, self.recipe.updates, rollout, float(mean), norm, rate, round(speed, 3)
        )
        self._note({"kind": "update", **vars(told)})
        self.listener.update(told)

    def _validate(self) -> None:
        if not self.world.first:
            return
        scores = validate(self.objective, self.ema, self.validation, self.recipe)
        self._note({"kind": "validation", "update": self.update, **scores.as_dict()})
        self.listener.validation(self.update, scores)

    def _note(self, entry: dict[str, Any]) -> None:
        with (self.folder / LOG).open("a") as sink:
            sink.write(json.dumps(entry) + "\n")

    def _trim_log(self) -> None:
        """Drop what was logged after the checkpoint: those updates are made again."""
        path = self.folder / LOG
        if not self.world.first or not path.exists():
            return
        kept = []
        for line in path.read_text().splitlines():
            try:
                if json.loads(line)["update"] <= self.update:
                    kept.append(line + "\n")
            except ValueError:
                break  # cut short by a kill
        path.write_text("".join(kept))

    def _restore(self, stored: TrainingState) -> None:
        self.update = stored.update
        device = self.world.device
        with torch.no_grad():
            for name, value in self.network.named_parameters():
                value.copy_(stored.weights[name])
                self.ema[name] = stored.ema[name].to(device).clone()
        self.optimizer.load_state_dict(stored.optimizer)
        if stored.scaler:
            self.scaler.load_state_dict(stored.scaler)
