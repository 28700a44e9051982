"""The loop: exact resumption, what stops it, what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from mosaic_core.errors import CheckpointError, ConfigurationError, TrainingError
from mosaic_core.model import checkpoint as model_files
from mosaic_core.model.checkpoint import LoadedModel
from mosaic_core.model.config import ModelConfig
from mosaic_core.model.rollout import rollout
from mosaic_core.training import resume
from mosaic_core.training.card import card, read_record
from mosaic_core.training.log import Log
from mosaic_core.training.objective import step_phases, window_noise
from mosaic_core.training.recipe import Recipe
from mosaic_core.training.trainer import CARD, MODEL, PICTURE, Trainer
from mosaic_core.training.validation import validate
from mosaic_core.training.world import World
from tests.training import world
from tests.training.conftest import Trained

PNG = b"\x89PNG"


def trainer(recipe: Recipe, folder: Path, go_on: bool = False) -> Trainer:
    return Trainer(recipe, folder, World(), go_on=go_on)


def losses(made: Trainer | Trained) -> list[tuple[float, float]]:
    return [(e["loss"], e["gradient_norm"]) for e in made.log.entries("update")]


def after(count: int) -> Iterator[bool]:
    """Asks for an end after `count` updates more."""
    yield from [False] * count
    while True:
        yield True


def train(recipe: Recipe, folder: Path, updates: int | None = None, **kwargs: Any) -> Trainer:
    made = trainer(recipe, folder, **kwargs)
    answers = iter([False]) if updates is None else after(updates - 1 - made.update)
    finished = made.run((lambda: False) if updates is None else answers.__next__)
    assert finished == (updates is None)
    return made


def test_a_training_that_was_stopped_goes_on_to_the_same_losses(
    site: Path, unbroken: Trained
) -> None:
    recipe = world.recipe(site)
    assert train(recipe, site / "broken", 5).update == 5
    whole = train(recipe, site / "broken", go_on=True)
    assert losses(whole) == losses(unbroken)
    assert len(losses(whole)) == recipe.updates
    kept = ("crps", "rmse", "spread", "persistence")
    for a, b in zip(
        whole.log.entries("validation"), unbroken.log.entries("validation"), strict=True
    ):
        assert [a[k] for k in kept] == [b[k] for k in kept]
    ours, theirs = (model_files.read_model(f / MODEL) for f in (whole.folder, unbroken.folder))
    for name, value in theirs.weights.items():
        assert torch.equal(ours.weights[name], value), name


def test_the_momentum_of_muon_and_the_spectral_loss_go_on_as_they_were(site: Path) -> None:
    phases = [{"updates": 4, "batch": 1, "learning_rate": 1e-3, "spectral": 0.5}]
    recipe = world.recipe(site, optimizer="muon", phases=phases)
    whole = train(recipe, site / "muon-whole")
    train(recipe, site / "muon-broken", 2)
    assert losses(train(recipe, site / "muon-broken", go_on=True)) == losses(whole)


def test_the_factor_on_noise_is_in_what_is_published_alone(site: Path, unbroken: Trained) -> None:
    quiet = train(world.recipe(site, noise=0.5), site / "quiet")
    assert losses(quiet) == losses(unbroken)
    ours, theirs = (model_files.read_model(f / MODEL) for f in (quiet.folder, unbroken.folder))
    for name, value in theirs.weights.items():
        factor = 0.5 if name == "noise_generator.to_noise.weight" else 1.0
        assert torch.equal(ours.weights[name], factor * value), name
    spread, wide = (t.log.entries("validation")[-1]["spread"] for t in (quiet, unbroken))
    assert all(spread[name][0] < wide[name][0] for name in wide)


def test_a_checkpoint_cut_short_gives_way_to_the_one_before(site: Path, unbroken: Trained) -> None:
    recipe, folder = world.recipe(site), site / "unbroken"
    newest = folder / resume.CHECKPOINT
    newest.write_bytes(newest.read_bytes()[:1000])
    again = trainer(recipe, folder, go_on=True)
    assert again.update == 9
    assert "checkpoint.pt" in again.notes[0]
    assert "going on from checkpoint-previous.pt, update 9" in again.notes[0]
    expected = losses(unbroken)
    again.run()
    assert losses(again) == expected
    found = resume.load(folder, recipe)
    assert found is not None
    assert (found.name, found.state.update) == (resume.CHECKPOINT, 10)
    assert torch.load(folder / resume.PREVIOUS, weights_only=True)["update"] == 9  # kept, not lost
    for name in (resume.CHECKPOINT, resume.PREVIOUS):
        (folder / name).write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="can be read"):
        trainer(recipe, folder, go_on=True)


def test_another_recipe_is_refused_by_the_names_of_what_differs(
    site: Path, unbroken: Trained
) -> None:
    folder = site / "unbroken"
    with pytest.raises(TrainingError, match="--resume"):
        trainer(world.recipe(site), folder)
    with pytest.raises(TrainingError, match="seed, members differ"):
        trainer(world.recipe(site, seed=4, members=3), folder, go_on=True)
    phases = world.recipe_content()["phases"]
    with pytest.raises(TrainingError, match="phases differ"):
        trainer(world.recipe(site, phases=phases[:1]), folder, go_on=True)
    longer = world.recipe(site, phases=[*phases, {"updates": 1}], description="free")
    more = train(longer, folder, go_on=True)
    assert more.update == 11
    assert any("phases" in note for note in more.notes)


def test_what_lies_ahead_may_change_and_is_told(site: Path) -> None:
    train(world.recipe(site), site / "out", 4)
    phases = world.recipe_content()["phases"]
    phases[0]["learning_rate"] = 1e-4
    changed = trainer(world.recipe(site, phases=phases, clip=0.5), site / "out", go_on=True)
    assert changed.update == 4
    assert sorted(note.split(":")[0] for note in changed.notes) == ["clip", "phases"]
    phases[0]["batch"] = 4
    with pytest.raises(TrainingError, match="phases differ"):
        trainer(world.recipe(site, phases=phases), site / "out", go_on=True)


def test_a_full_disk_ends_with_a_sentence_and_training_goes_on_later(
    site: Path, unbroken: Trained
) -> None:
    recipe, folder = world.recipe(site), site / "full"
    first = train(recipe, folder, 3)
    assert first.update == 3
    (folder / f"{resume.CHECKPOINT}.partial").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"no checkpoint of update 6.*make room"):
        trainer(recipe, folder, go_on=True).run()
    assert losses(train(recipe, folder, go_on=True)) == losses(unbroken)


def test_a_full_disk_is_named_wherever_it_strikes(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, recipe = site / "full", world.recipe(site, phases=[{"updates": 1}])
    folder.mkdir()
    (folder / f"{CARD}.partial").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"cannot write .*card\.md.*No space"):
        trainer(recipe, folder).run()

    def refuse(*args: Any) -> None:
        raise SafetensorError("Error while serializing: No space left on device")

    (folder / f"{CARD}.partial").unlink()
    monkeypatch.setattr(model_files, "write_model", refuse)
    with pytest.raises(TrainingError, match=r"cannot write .*model\.safetensors.*No space"):
        trainer(recipe, folder, go_on=True).run()


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"cannot write .*log\.jsonl"):
        Log(tmp_path).note("update", 1, loss=0.5)


def test_a_loss_that_is_not_finite_stops_and_the_last_good_checkpoint_stays(site: Path) -> None:
    phases = [
        {"updates": 4, "learning_rate": 1e-3},
        {"updates": 4, "learning_rate": 1e30},
    ]
    recipe, folder = world.recipe(site, phases=phases, checkpoint_every=4), site / "out"
    with pytest.raises(TrainingError, match=r"(loss|norm) is (nan|inf)") as caught:
        trainer(recipe, folder).run()
    assert caught.value.exit_code == 4
    assert "--resume" in caught.value.action
    assert len(losses(trainer(recipe, folder, go_on=True))) < 8
    phases[1]["learning_rate"] = 1e-4
    mended = trainer(world.recipe(site, phases=phases, checkpoint_every=4), folder, go_on=True)
    assert mended.update == 4
    mended.run()
    assert np.isfinite(losses(mended)).all()
    assert mended.update == 8


def test_a_checkpoint_that_led_straight_to_it_is_set_aside(site: Path) -> None:
    phases = [{"updates": 3, "learning_rate": 1e-3}, {"updates": 3, "learning_rate": 1e30}]
    recipe, folder = world.recipe(site, phases=phases, checkpoint_every=1), site / "out"
    with pytest.raises(TrainingError, match=r"set aside as checkpoint-unsound\.pt"):
        trainer(recipe, folder).run()
    found = resume.load(folder, recipe)
    assert found is not None
    assert found.name == resume.PREVIOUS
    assert all(torch.isfinite(value).all() for value in found.state.weights.values())
    assert max(float(value.abs().max()) for value in found.state.weights.values()) < 100


@pytest.mark.slow
def test_one_batch_is_learned_by_heart(site: Path) -> None:
    """The same two windows again and again: the loss falls under a fifth of what it was."""
    content = world.recipe_content()["data"]
    data = {**content, "train": {"start": world.START.isoformat(),
                                 "end": world.time_of(4).isoformat()}}  # fmt: skip
    phases = [{"updates": 150, "batch": 2, "members": 1, "learning_rate": 1e-2, "final": 0.05}]
    recipe = world.recipe(site, data=data, phases=phases, checkpoint_every=150, validate_every=150)
    found = [loss for loss, _ in losses(train(recipe, site / "out"))]
    assert np.mean(found[-5:]) < 0.2 * np.mean(found[:5])


def test_the_running_mean_follows_its_formula(site: Path) -> None:
    recipe = world.recipe(site, phases=[{"updates": 3, "learning_rate": 1e-2}], ema=0.15)
    made = trainer(recipe, site / "out")
    name, value = next(iter(made.network.named_parameters()))
    expected = value.detach().clone()
    for update in range(3):
        answers = after(0)
        made.run(answers.__next__)
        decay = min(0.15, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value.detach()
    torch.testing.assert_close(made.ema[name], expected)


def test_a_phase_of_one_member_sees_no_noise(site: Path) -> None:
    phases = [{"updates": 1, "members": 1}]
    made = trainer(world.recipe(site, phases=phases), site / "out")
    window = made.train.read(made.train.time(0), 1)
    history, phase = window.history[None], step_phases(made.network, [window.time], 1)[:, 0]
    with torch.no_grad():
        following = made.objective.step(history, phase, torch.zeros(1, 4))
        error = ((following - window.targets[0]) / made.objective.change).abs()
        expected = (error * made.objective.area * made.objective.weight).mean()
    made.run()
    assert losses(made)[0][0] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("predicts", ["change", "state"])
def test_the_published_file_forecasts_as_training_did(site: Path, predicts: str) -> None:
    world.model_file(site, predicts=predicts)
    made = train(world.recipe(site, phases=[{"updates": 2}]), site / "out")
    config = ModelConfig.load(str(site / "tiny.yaml"))
    file = model_files.read_model(site / "out" / MODEL)
    model = model_files.load_model(
        config, file, model_files.version_of(config, file), torch.device("cpu")
    )
    time = made.validation.times[0]
    window, noise = made.validation.read(time, 2), window_noise(1, 0, 3, 2, 4)
    states = window.history.expand(3, -1, -1, -1, -1)
    found = list(rollout(model, states, time, lambda step: noise[:, step - 1], range(1, 3)))
    with torch.no_grad():
        for name, value in made.network.named_parameters():
            value.copy_(made.ema[name])
        phases = step_phases(made.network, [time], 2)
        for step in range(2):
            now = phases[0, step].expand(3, -1)
            following = made.objective.step(states, now, noise[:, step])
            torch.testing.assert_close(found[step], following, rtol=1e-5, atol=1e-3)
            states = torch.cat((states[:, 1:], following[:, None]), dim=1)


def test_a_model_of_changes_without_their_deviation_is_refused(site: Path) -> None:
    config = ModelConfig.load(str(site / "tiny.yaml"))
    count = len(config.channel_set)
    file = model_files.untrained(
        config, torch.zeros(count), torch.ones(count), torch.zeros(16, 9, 1)
    )
    without = model_files.ModelFile(**{**vars(file), "change": None})
    with pytest.raises(CheckpointError, match="change_std"):
        load(config, without)


def load(config: ModelConfig, file: model_files.ModelFile) -> LoadedModel:
    version = model_files.version_of(config, file)
    return model_files.load_model(config, file, version, torch.device("cpu"))


def test_validation_finds_spread_equal_to_error_where_truth_is_one_of_the_members(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members and truth drawn from one distribution: spread/skill is one but for sampling."""
    (site / "archive.zarr").unlink()
    values = np.random.default_rng(5).normal(280, 1, (84, 16, 9, 4)).astype(np.float32)
    world.write_archive(site / "archive.zarr", values)
    recipe = world.recipe(site, validation_windows=16, validation_members=5)
    made = trainer(recipe, site / "out")
    generator = torch.Generator().manual_seed(1)

    def step(states: torch.Tensor, time: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return 280 + torch.randn(states[:, -1].shape, generator=generator)

    monkeypatch.setattr(made.objective, "step", step)
    scores = validate(made.objective, made.ema, made.validation, recipe)
    for name, rmse in scores.rmse.items():
        ratio = np.array(scores.spread[name]) / np.array(rmse)
        np.testing.assert_allclose(ratio, 1, atol=0.06)
        np.testing.assert_allclose(scores.persistence[name], np.sqrt(2), rtol=0.06)
        # Mean of five members against a sixth draw: variance 1 + 1/5.
        np.testing.assert_allclose(rmse, np.sqrt(1.2), rtol=0.06)
    # E|X - Y| - E|X - X'| / 2 = 1 / sqrt(pi) of unit normals; a change has deviation sqrt(2).
    np.testing.assert_allclose(scores.crps, 1 / np.sqrt(2 * np.pi), rtol=0.06)


@pytest.mark.slow
def test_what_is_left_out_stands_in_the_card_also_after_resuming(site: Path) -> None:
    (site / "archive.zarr").unlink()
    values = world.waves(84)
    values[30, 0, 0, 2] = np.inf
    world.write_archive(site / "archive.zarr", values)
    data = {**world.recipe_content()["data"], "missing": "skip", "statistics_samples": 5}
    phases = [{"updates": 40, "batch": 2}]
    recipe = world.recipe(site, data=data, phases=phases, checkpoint_every=50, validate_every=50)
    stopped = train(recipe, site / "out", 39)
    assert stopped.train.skipped
    assert set(stopped.train.skipped) <= {world.time_of(i) for i in range(28, 33)}
    whole = train(recipe, site / "out", go_on=True)
    text = (site / "out" / CARD).read_text()
    for time in stopped.train.skipped:
        assert time.isoformat() in text
    assert "geopotential at 500 hPa of 2026-03-08T12Z" in text
    record = read_record(model_files.read_model(site / "out" / MODEL).metadata)
    assert record is not None
    assert len(record["skipped"]) == len(whole.train.skipped)


def test_data_that_is_not_finite_stops_a_training_by_default(site: Path) -> None:
    (site / "archive.zarr").unlink()
    values = world.waves(84)
    values[:, 3, 3, 1] = np.nan
    world.write_archive(site / "archive.zarr", values)
    with pytest.raises(Exception, match="temperature at 850 hPa of 2026-03-01"):
        trainer(world.recipe(site), site / "out")


def test_a_finished_training_leaves_model_card_and_picture(unbroken: Trained) -> None:
    folder = unbroken.folder
    file = model_files.read_model(folder / MODEL)
    record = read_record(file.metadata)
    assert record is not None
    assert record["updates"] == 10
    assert record["recipe"]["phases"] == [dict(asdict(p)) for p in unbroken.recipe.phases]
    assert record["validation"]["update"] == 10
    text = (folder / CARD).read_text()
    assert text == card(file)
    for part in ("2026-03-01", "10 updates", "Apache-2.0", "RMSE/persistence", "left out: nothing"):
        assert part in text, part
    assert "NOT FINISHED" not in text
    assert (folder / PICTURE).read_bytes().startswith(PNG)
    (folder / MODEL).unlink()
    assert trainer(unbroken.recipe, folder, go_on=True).run()
    assert (folder / MODEL).exists()


def test_the_card_of_a_stopped_training_says_so(site: Path) -> None:
    train(world.recipe(site), site / "out", 2)
    text = (site / "out" / CARD).read_text()
    assert "NOT FINISHED: 2 of 10 updates" in text
    assert "None was made yet" in text


@pytest.mark.slow
def test_half_precision_trains_and_stays_near(site: Path, unbroken: Trained) -> None:
    found = losses(train(world.recipe(site, precision="bfloat16"), site / "half"))
    assert found[0] != losses(unbroken)[0]
    np.testing.assert_allclose(
        [loss for loss, _ in found], [loss for loss, _ in losses(unbroken)], rtol=0.1
    )


def test_a_batch_that_cannot_be_dealt_out_is_refused(site: Path) -> None:
    with pytest.raises(ConfigurationError, match="batch of 2 windows on 3 processes"):
        Trainer(world.recipe(site), site / "out", World(0, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"step_hours": 12}, {"history": 3}, {"history": 1}, {"neighbours": 3}]
)
def test_another_variant_starts_from_trained_weights(
    site: Path, unbroken: Trained, change: dict[str, int]
) -> None:
    world.model_file(site, "other", **change)
    recipe = world.recipe(
        site, model=str(site / "other.yaml"), start_from=str(unbroken.folder / MODEL)
    )
    made = trainer(recipe, site / "finetuned")
    old = model_files.read_model(unbroken.folder / MODEL)
    new = dict(made.network.named_parameters())
    first = "preprocess.0.weight"
    for name, value in old.weights.items():
        if name != first or "history" not in change:
            assert torch.equal(new[name], value), name
    assert torch.equal(made.statistics.mean, old.mean)
    assert next(iter(change)) in " ".join(made.notes) or first in " ".join(made.notes)
    channels, before = len(world.CHANNELS), 2
    now = change.get("history", before)
    shared = min(now, before) * channels
    ours, theirs = new[first].detach(), old.weights[first]
    rest = theirs.shape[1] - before * channels
    assert torch.equal(ours[:, -rest:], theirs[:, -rest:])
    assert torch.equal(
        ours[:, now * channels - shared : now * channels],
        theirs[:, before * channels - shared : before * channels],
    )
    assert not ours[:, : now * channels - shared].any()
    assert old.change is not None
    if "step_hours" in change:
        assert (made.statistics.change > 1.2 * old.change).all()
        assert made.train.step == timedelta(hours=12)
    else:
        assert torch.equal(made.statistics.change, old.change)
    assert made.run()
    assert np.isfinite(losses(made)).all()
    again = trainer(recipe, site / "finetuned", go_on=True)
    assert torch.equal(again.statistics.change, made.statistics.change)
    assert str(unbroken.folder / MODEL) in (site / "finetuned" / CARD).read_text()


def test_weights_of_another_kind_of_model_are_refused_by_what_differs(
    site: Path, unbroken: Trained
) -> None:
    start = {"start_from": str(unbroken.folder / MODEL)}
    for change, name in (
        ({"noise_dim": 5}, "noise_dim"),
        ({"channels": list(world.CHANNELS[:3])}, "channels"),
        ({"predicts": "state"}, "predicts"),
    ):
        world.model_file(site, "other", **change)
        recipe = world.recipe(site, model=str(site / "other.yaml"), **start)
        with pytest.raises(CheckpointError, match=f"other {name}"):
            trainer(recipe, site / "finetuned")
