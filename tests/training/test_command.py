"""`mosaic train` and `mosaic model card`: what is printed, kept and refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mosaic_core.cli import app
from mosaic_core.cli.train import Pace
from mosaic_core.errors import ConfigurationError, MosaicError, TrainingError
from mosaic_core.model.config import ModelConfig
from mosaic_core.settings import config_folder
from mosaic_core.training import board, plan
from mosaic_core.training.recipe import Recipe
from mosaic_core.training.trainer import CARD, MODEL, PICTURE
from tests.servers import free_port
from tests.training import world

PATIENCE = 400
Losses = list[tuple[int, float, float]]


def mosaic(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def losses(folder: Path) -> Losses:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(e["update"], e["loss"], e["gradient_norm"]) for e in lines if e["kind"] == "update"]


def start(*words: str, processes: int = 1) -> subprocess.Popen[str]:
    launcher = ["-m", "mosaic_core.cli"]
    if processes > 1:
        launcher = [
            "-m", "torch.distributed.run", "--nproc-per-node", str(processes),
            "--master-addr", "127.0.0.1", "--master-port", str(free_port()),
            "-m", "mosaic_core.cli",
        ]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *launcher, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip


def when_logged(process: subprocess.Popen[str], folder: Path, updates: int) -> None:
    end = time.monotonic() + PATIENCE
    log = folder / "log.jsonl"
    while not log.exists() or log.read_text().count('"kind": "update"') < updates:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_training_tells_how_it_comes_along_and_what_came_of_it(site: Path) -> None:
    output = mosaic(
        "train", str(site / "recipe.yaml"), "--output", str(site / "out"), "--device", "cpu",
        "--set", "phases.0.updates=2", "--set", "phases.1.updates=1",
    )  # fmt: skip
    assert "update 1 of 3: loss" in output
    assert "windows/s" in output
    assert "left" in output
    assert "update 3 of 3" in output
    assert "RMSE/persistence" in output
    for name in (MODEL, CARD, PICTURE):
        assert str(site / "out" / name) in output
        assert (site / "out" / name).exists()
    assert (board.ABSENT in output) != (site / "out" / board.FOLDER).exists()
    text = mosaic("model", "card", str(site / "out" / MODEL))
    assert text == (site / "out" / CARD).read_text()
    shown = mosaic("model", "inspect", str(site / "out" / MODEL))
    assert "tiny, 3 updates" in shown
    document = json.loads(mosaic("model", "inspect", str(site / "out" / MODEL), "--json"))
    assert document["training"]["updates"] == 3


def test_without_tensorboard_one_sentence_says_so(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "available", lambda: False)
    output = mosaic(
        "train", str(site / "recipe.yaml"), "--output", str(site / "out"), "--device", "cpu",
        "--set", "phases=[{updates: 1}]",
    )  # fmt: skip
    assert output.count(board.ABSENT) == 1
    assert not (site / "out" / board.FOLDER).exists()


def test_a_dry_run_tells_what_would_happen_and_leaves_nothing(site: Path) -> None:
    before = sorted(site.iterdir())
    output = mosaic("train", str(site / "recipe.yaml"), "--dry-run")
    assert "13,072 parameters" in output
    assert "57 initial times of training, 17 of validation" in output
    assert "20 windows" in output
    assert output.count("GB") == 2
    assert sorted(site.iterdir()) == before


def test_mistakes_of_the_command_line_are_named(site: Path) -> None:
    recipe = str(site / "recipe.yaml")
    for words, expected in (
        (["--dry-run", "-s", "phasess=3"], "did you mean 'phases'"),
        ([], "--output FOLDER"),
        (["--dry-run", "-s", "data.inputs=/nowhere/archive.zarr"], "cannot be opened"),
    ):
        with pytest.raises(MosaicError) as caught:
            mosaic("train", recipe, *words)
        assert expected in str(caught.value)
    with pytest.raises(ConfigurationError, match="did you mean 'demo'"):
        mosaic("train", "dmo", "--dry-run")


def test_a_folder_with_a_training_is_not_begun_anew(site: Path) -> None:
    words = ["train", str(site / "recipe.yaml"), "--output", str(site / "out"), "--device", "cpu",
             "--set", "phases=[{updates: 1}]"]  # fmt: skip
    mosaic(*words)
    with pytest.raises(TrainingError, match="--resume"):
        mosaic(*words)
    assert "1 updates" in mosaic(*words, "--resume")


def test_the_time_left_counts_the_steps_of_each_phase(site: Path) -> None:
    recipe = world.recipe(site)  # 6 x 2 windows of one step, 4 x 2 of two: 12 + 16
    pace = Pace(recipe, 0)
    now = pace._began + 10.0
    assert pace.left(6, now) == pytest.approx(10.0 * 16 / 12)
    assert pace.left(10, now) == 0


@pytest.mark.parametrize("path", sorted((config_folder() / "training").glob("*.yaml")))
def test_shipped_recipes_can_be_read(path: Path) -> None:
    recipe = Recipe.load(path.stem)
    config = ModelConfig.load(recipe.model)
    assert recipe.updates > 0
    assert recipe.description
    assert set(recipe.variable_weights) <= set(config.channel_set.variables)
    if path.stem in ("era5", "hres"):
        assert all(recipe.share(phase, 8) >= 1 for phase in recipe.phases)
        assert "NEVER RUN" in recipe.description


def test_memory_grows_with_the_rollout_and_less_when_recomputed() -> None:
    found = plan.Activations(outside=100, blocks=(50, 70), inputs=(5, 5), states=3)
    assert found.peak(1, False) == 220
    assert found.peak(4, False) == 880
    assert found.peak(1, True) == 100 + 10 + 70
    assert found.peak(4, True) == 180 + 12


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_to_the_same_losses(site: Path) -> None:
    recipe = str(world.write_recipe(site, phases=[{"updates": 40, "batch": 2}]))
    mosaic("train", recipe, "--output", str(site / "unbroken"), "--device", "cpu")
    words = ["train", recipe, "--output", str(site / "out"), "--device", "cpu", "--resume"]
    for updates in (5, 20):
        process = start(*words)
        try:
            when_logged(process, site / "out", updates)
        finally:
            process.kill()
            process.communicate()
    mosaic(*words)
    assert losses(site / "out") == losses(site / "unbroken")
    assert len(losses(site / "out")) == 40


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(site: Path, number: signal.Signals) -> None:
    changes = {"phases": [{"updates": 4000, "batch": 2}], "checkpoint_every": 4000,
               "validate_every": 4000}  # fmt: skip
    recipe = str(world.write_recipe(site, **changes))
    words = ["train", recipe, "--output", str(site / "out"), "--device", "cpu"]
    process = start(*words)
    try:
        when_logged(process, site / "out", 3)
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130
    done = len(losses(site / "out"))
    assert f"stopped and saved after update {done} of 4000" in errors
    assert f"mosaic train {recipe} --output {site / 'out'} --resume" in errors
    assert "the same command" not in errors
    assert "Traceback" not in errors
    assert "NOT FINISHED" in (site / "out" / CARD).read_text()
    longer = str(world.write_recipe(site, **{**changes, "phases": [{"updates": done + 1,
                                                                   "batch": 2}]}))  # fmt: skip
    mosaic("train", longer, "--output", str(site / "out"), "--device", "cpu", "--resume")
    assert [u for u, *_ in losses(site / "out")] == list(range(1, done + 2))


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(site: Path) -> None:
    recipe = str(site / "recipe.yaml")
    mosaic("train", recipe, "--output", str(site / "one"), "--device", "cpu")
    words = ["train", recipe, "--output", str(site / "two"), "--device", "cpu"]
    process = start(*words, processes=2)
    try:
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    one, two = losses(site / "one"), losses(site / "two")
    assert [u for u, *_ in two] == [u for u, *_ in one]
    for (_, loss, norm), (_, loss2, norm2) in zip(one, two, strict=True):
        assert loss2 == pytest.approx(loss, rel=2e-4)
        assert norm2 == pytest.approx(norm, rel=5e-3)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_with_exit_code_4(site: Path) -> None:
    phases = [{"updates": 6, "learning_rate": 1e30}]
    recipe = str(world.write_recipe(site, phases=phases, checkpoint_every=20))
    process = start("train", recipe, "--output", str(site / "out"), "--device", "cpu")
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4, errors
    assert "TrainingError" in errors
    assert "Traceback" not in errors
