"""`mosaic train`: train a model by a recipe, go on with a training, or tell what it would do."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosaic_core.cli.options import Told
from mosaic_core.errors import ConfigurationError

if TYPE_CHECKING:
    from mosaic_core.training.log import Update
    from mosaic_core.training.recipe import Recipe
    from mosaic_core.training.trainer import Listener, Trainer
    from mosaic_core.training.validation import Scores
    from mosaic_core.training.world import World

_EVERY_SECONDS = 10.0
"""Between two plain lines, where standard error is not a terminal."""


def add_to(app: typer.Typer) -> None:
    app.command()(train)


def train(
    recipe: Annotated[str, typer.Argument(help="Name in config/training, or a YAML file.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints, log, model and card.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in the folder, if any.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a value of the recipe."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would happen, and end.")
    ] = False,
) -> None:
    """Train a model by a recipe; on several GPUs under torchrun."""
    from mosaic_core.training.recipe import Recipe

    loaded = Recipe.load(recipe, overrides=overrides or ())
    if dry_run:
        from mosaic_core.training.plan import plan

        for line in plan(loaded, int(os.environ.get("WORLD_SIZE", "1"))).lines:
            typer.echo(line)
        return
    if output is None:
        raise ConfigurationError("no folder", "--output FOLDER", "name one, or add --dry-run")
    from mosaic_core.training.trainer import Trainer
    from mosaic_core.training.world import joined

    with ExitStack() as stack, _stop_asked() as asked:
        world = stack.enter_context(joined(device))
        listeners = _Listeners()
        trainer = Trainer(loaded, output, world, go_on=resume, listener=listeners.as_one())
        if world.first:
            for note in trainer.notes:
                typer.echo(note, err=True)
            listeners.add_progress(stack, loaded, trainer.update)
            listeners.add_board(stack, trainer)
        began = time.monotonic()
        finished = trainer.run(lambda: bool(asked))
        stack.close()
        if not finished:
            _say_how_to_go_on(trainer, world, recipe, output, overrides)
    if world.first:
        _summary(trainer, time.monotonic() - began)


@contextmanager
def _stop_asked() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM fill; a second one ends at once."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        asked.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_how_to_go_on(
    trainer: Trainer, world: World, recipe: str, output: Path, overrides: list[str] | None
) -> None:
    if world.first:
        words = ["mosaic", "train", recipe, "--output", str(output), "--resume"]
        for text in overrides or ():
            words += ["--set", text]
        typer.echo(
            f"stopped and saved after update {trainer.update} of {trainer.recipe.updates}; "
            f"it goes on with: {shlex.join(words)}",
            err=True,
        )
    raise Told(130)


def _summary(trainer: Trainer, seconds: float) -> None:
    from mosaic_core.training.trainer import CARD, MODEL, PICTURE

    validations = trainer.log.entries("validation")
    lines = [f"{trainer.recipe.name}: {trainer.update} updates, {seconds:.0f} s of them now"]
    if validations:
        last = validations[-1]
        lines.append("CRPS by step      " + "  ".join(f"{v:.3f}" for v in last["crps"]))
        for name, values in last["rmse"].items():
            ratios = (
                v / max(p, 1e-30) for v, p in zip(values, last["persistence"][name], strict=True)
            )
            lines.append(f"{name}: RMSE/persistence " + "  ".join(f"{r:.2f}" for r in ratios))
    if trainer.train.skipped:
        lines.append(f"{len(trainer.train.skipped)} windows were left out; the card names them")
    lines += [str(trainer.folder / name) for name in (MODEL, CARD, PICTURE)]
    typer.echo("\n".join(lines))


class _Listeners:
    """Progress and TensorBoard, told as one."""

    def __init__(self) -> None:
        self._all: list[Any] = []

    def as_one(self) -> Listener:
        from mosaic_core.training.trainer import Listener

        def update(told: Update) -> None:
            for each in self._all:
                each.update(told)

        def validation(number: int, scores: Scores) -> None:
            for each in self._all:
                each.validation(number, scores)

        return Listener(update, validation)

    def add_progress(self, stack: ExitStack, recipe: Recipe, update: int) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        pace = Pace(recipe, update)
        self._all.append(
            _Bar(stack, console, recipe, update, pace) if console.is_terminal else _Lines(pace)
        )

    def add_board(self, stack: ExitStack, trainer: Trainer) -> None:
        from mosaic_core.training import board

        if board.available():
            writer = board.Board(trainer.folder, trainer.update)
            stack.callback(writer.close)
            self._all.append(writer)
        else:
            typer.echo(board.ABSENT, err=True)


class Pace:
    """How long the rest will take: a window of a longer rollout takes longer in proportion."""

    def __init__(self, recipe: Recipe, update: int) -> None:
        self._recipe = recipe
        self._began, self._first = time.monotonic(), self._work(update)

    def _work(self, update: int) -> int:
        """Steps of windows in the first `update` updates."""
        done = 0
        for phase in self._recipe.phases:
            here = min(update, phase.updates)
            done += here * phase.batch * phase.rollout
            update -= here
        return done

    def left(self, update: int, now: float | None = None) -> float:
        """Seconds until the end."""
        passed = (time.monotonic() if now is None else now) - self._began
        done = self._work(update)
        total = self._work(self._recipe.updates)
        return passed * (total - done) / max(1, done - self._first)


def _text(told: Update, left: float) -> str:
    hours, rest = divmod(int(left), 3600)
    return (
        f"loss {told.loss:.4f}, rate {told.learning_rate:.2g}, "
        f"{told.windows_per_second:.2f} windows/s, {hours}:{rest // 60:02}:{rest % 60:02} left"
    )


def _scores_text(update: int, scores: Scores) -> str:
    return f"update {update}: validation CRPS " + "  ".join(f"{v:.3f}" for v in scores.crps)


class _Lines:
    """Plain lines at times, the first and the last update among them."""

    def __init__(self, pace: Pace) -> None:
        self._pace, self._last = pace, -_EVERY_SECONDS

    def update(self, told: Update) -> None:
        now = time.monotonic()
        if now - self._last >= _EVERY_SECONDS or told.update == told.updates:
            self._last = now
            text = _text(told, self._pace.left(told.update))
            typer.echo(f"update {told.update} of {told.updates}: {text}", err=True)

    def validation(self, update: int, scores: Scores) -> None:
        typer.echo(_scores_text(update, scores), err=True)


class _Bar:
    """A bar on a terminal."""

    def __init__(
        self, stack: ExitStack, console: Any, recipe: Recipe, update: int, pace: Pace
    ) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._pace = pace
        columns = (TextColumn("update"), BarColumn(24), MofNCompleteColumn(),
                   TextColumn("{task.fields[note]}"))  # fmt: skip
        self._bar = stack.enter_context(Progress(*columns, console=console))
        self._task = self._bar.add_task("", total=recipe.updates, completed=update, note="")

    def update(self, told: Update) -> None:
        note = _text(told, self._pace.left(told.update))
        self._bar.update(self._task, completed=told.update, note=note)

    def validation(self, update: int, scores: Scores) -> None:
        self._bar.console.print(_scores_text(update, scores))
