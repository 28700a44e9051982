"""A training recipe: every number that the trained weights depend on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal

from mosaic_core.errors import ConfigurationError
from mosaic_core.settings import build, override, read_config

ChannelWeights = Literal["uniform", "pressure"]
Optimizer = Literal["adamw", "muon"]
Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Period:
    """Valid times from `start` up to, not including, `end` (ISO, UTC)."""

    start: str | date
    end: str | date

    def __post_init__(self) -> None:
        for name in ("start", "end"):  # YAML reads a bare date as one
            object.__setattr__(self, name, str(getattr(self, name)))

    @property
    def bounds(self) -> tuple[datetime, datetime]:
        try:
            first, last = (datetime.fromisoformat(str(t)).replace(tzinfo=UTC) for t in
                           (self.start, self.end))  # fmt: skip
        except ValueError as error:
            raise ConfigurationError(
                f"period {self.start!r} to {self.end!r}: {error}", "ISO times, as in 2026-03-01"
            ) from error
        if first >= last:
            raise ConfigurationError(f"period {self.start} to {self.end}", "a start before the end")
        return first, last


@dataclass(frozen=True)
class DataConfig:
    """Where states come from.

    Attributes:
        inputs: Zarr archive in WeatherBench layout that initial states are read from; URL or path.
        targets: archive of what the forecast should be, on the same grid; `inputs` when None. A
            simulation knows the truth; of the real atmosphere there are only analyses.
        train, validation: periods of initial times and targets; they may not overlap.
        missing: what to do about a window whose times are absent, not finite or unreadable: `stop`
            names it and ends; `skip` names it, leaves it out and draws another.
        every_hours: spacing of possible initial times.
        readers: threads that read ahead.
        statistics_samples: states that normalisation and change statistics are taken from.
    """

    inputs: str
    train: Period
    validation: Period
    targets: str | None = None
    missing: Literal["stop", "skip"] = "stop"
    every_hours: int = 6
    readers: int = 1
    statistics_samples: int = 400

    def __post_init__(self) -> None:
        (a, b), (c, d) = self.train.bounds, self.validation.bounds
        if a < d and c < b:
            raise ConfigurationError(
                f"training {self.train.start} to {self.train.end} and validation "
                f"{self.validation.start} to {self.validation.end} overlap",
                "periods apart, so that validation is of states never seen",
            )


@dataclass(frozen=True)
class Phase:
    """Some updates at one rollout length.

    Attributes:
        updates: optimiser updates.
        rollout: model steps that the loss averages over.
        batch: windows an update, over all processes.
        members: of the ensemble in the loss; None takes the recipe's. With 1 the noise is zero and
            the loss the mean absolute error: a cheap start, before perturbations are learned.
        spectral: weight of the loss in spectral space beside that at points.
        learning_rate: after the warm-up; falls to `final` of it along a half cosine.
        warm_up: updates of linear warm-up.
        final: share of the learning rate at the end of the phase.
    """

    updates: int
    rollout: int = 1
    batch: int = 1
    members: int | None = None
    spectral: float = 0.0
    learning_rate: float = 1e-3
    warm_up: int = 0
    final: float = 1.0

    def __post_init__(self) -> None:
        counts = self.updates, self.rollout, self.batch, self.members or 1
        if min(counts) < 1 or not self.learning_rate > 0:
            raise ConfigurationError(
                f"phase of {self.updates} updates, rollout {self.rollout}, batch {self.batch}, "
                f"members {self.members}, learning rate {self.learning_rate}",
                "one or more of each",
            )
        if not 0 <= self.warm_up <= self.updates or not 0 <= self.final <= 1:
            raise ConfigurationError(
                f"warm_up {self.warm_up}, final {self.final}", "0 to `updates`, and 0 to 1"
            )


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        model: configuration in `config/models`, or a YAML path.
        phases: in order; single steps first, then longer rollouts.
        start_from: model file whose weights, statistics and static fields training starts from
            (finetuning, as the published hres variant from era5); None trains from random weights.
        static: file of static fields; None takes them from the archive's `static.npz`.
        members: of the ensemble in the loss, where a phase does not say.
        channel_weights: `uniform`, or `pressure`: levels in proportion to pressure and surface
            variables but 2 m temperature at 0.1, as GraphCast (Lam et al. 2023) has them.
        variable_weights: further factors by variable.
        optimizer: `adamw` (Loshchilov and Hutter 2019), or `muon`, which gives the matrices within
            the network orthogonal updates (`mosaic_core.training.optimizer`).
        weight_decay, betas, clip: of the optimizer; the largest gradient norm.
        ema: decay of the running mean of the weights, which is what is published.
        noise: factor on the noise of the published model and of validation, not of the loss. Long
            rollouts widen the spread of the first day; less noise narrows it, as validation shows.
        precision: of the matrix products; float16 scales the loss.
        recompute: whether activations are computed again in the backward pass: of each block, and
            of each step when there are several.
        validate_every, checkpoint_every: in updates.
        validation_windows, validation_members, validation_steps: what validation scores.
    """

    name: str
    model: str
    data: DataConfig
    phases: tuple[Phase, ...]
    start_from: str | None = None
    static: str | None = None
    seed: int = 0
    members: int = 2
    channel_weights: ChannelWeights = "pressure"
    variable_weights: dict[str, float] = field(default_factory=dict)
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    ema: float = 0.999
    noise: float = 1.0
    precision: Precision = "float32"
    recompute: bool = False
    checkpoint_every: int = 200
    validate_every: int = 500
    validation_windows: int = 8
    validation_members: int = 4
    validation_steps: int = 2
    licence: str = "Apache-2.0"
    attribution: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not self.phases:
            raise ConfigurationError(f"recipe {self.name}: no phases", "at least one")
        if self.members < 1 or not self.clip > 0 or not 0 <= self.ema < 1 or not self.noise > 0:
            raise ConfigurationError(
                f"recipe {self.name}: members {self.members}, clip {self.clip}, ema {self.ema}, "
                f"noise {self.noise}",
                "members 1 or more, clip and noise over 0, ema from 0 to under 1",
            )
        counts = (
            "checkpoint_every", "validate_every", "validation_windows", "validation_members",
            "validation_steps",
        )  # fmt: skip
        low = [name for name in counts if getattr(self, name) < 1]
        if low:
            raise ConfigurationError(f"recipe {self.name}: {', '.join(low)} under 1", "1 or more")
        if self.start_from is not None and self.static is not None:
            raise ConfigurationError(
                f"recipe {self.name}: static fields come with the weights of `start_from`",
                "`static` or `start_from`",
                "remove `static`",
            )

    @classmethod
    def load(
        cls, name: str, replaced: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
    ) -> Recipe:
        """Read `config/training/<name>.yaml`, or the file at a path that ends in .yaml.

        Args:
            replaced: whole values of the recipe's own keys.
            overrides: `key=value`, `data.inputs=value` or `phases.0.updates=value`.

        Raises:
            ConfigurationError: an unknown key or a wrong value.
        """
        content, path = read_config("training", name)
        content.update(replaced or {})
        for text in overrides:
            override(content, text)
        return build(cls, content, str(path))

    @property
    def updates(self) -> int:
        return sum(phase.updates for phase in self.phases)

    def phase_at(self, update: int) -> tuple[Phase, int]:
        """The phase of an update (from 0), and the update's number within it."""
        for phase in self.phases:
            if update < phase.updates:
                return phase, update
            update -= phase.updates
        raise ValueError(f"update {update} is after the last phase")

    @property
    def longest(self) -> int:
        """Steps of the longest rollout of training."""
        return max(phase.rollout for phase in self.phases)

    def members_of(self, phase: Phase) -> int:
        """Members in the loss of a phase."""
        return phase.members or self.members

    def position(self, update: int) -> int:
        """Windows of the stream that the first `update` updates take."""
        taken = 0
        for phase in self.phases:
            done = min(update, phase.updates)
            taken += done * phase.batch
            update -= done
        return taken

    def share(self, phase: Phase, processes: int) -> int:
        """Windows of an update on each process.

        Raises:
            ConfigurationError: the batch cannot be dealt out evenly.
        """
        if phase.batch % processes:
            raise ConfigurationError(
                f"a batch of {phase.batch} windows on {processes} processes",
                "a multiple of the processes",
                "change `batch`, or the processes of torchrun",
            )
        return phase.batch // processes

    def requests(self, update: int, rank: int = 0, processes: int = 1) -> Iterator[tuple[int, int]]:
        """(place in the stream, steps) of the windows that a process needs from `update` on.

        The windows of an update are the same on any number of processes.
        """
        while update < self.updates:
            phase, _ = self.phase_at(update)
            share = self.share(phase, processes)
            first = self.position(update) + rank * share
            for i in range(share):
                yield first + i, phase.rollout
            update += 1
