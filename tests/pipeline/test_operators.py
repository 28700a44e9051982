"""What an operator sees: status, doctor, settings and refusals, never a traceback."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.model import checkpoint
from mosaic_core.pipeline.site import open_site
from mosaic_core.profile import Profile
from tests.pipeline.command import mosaic
from tests.pipeline.world import FIRST, SECOND, World, plain


def weights_of(world: World, **changes: object) -> Path:
    """A model file of this world's variant, with tensors changed, added or (None) left out."""
    site = open_site(Profile.load(world.profile))
    file = site.model.file
    weights = {k: v for k, v in {**file.weights, **changes}.items() if v is not None}
    path = world.folder / "weights.safetensors"
    checkpoint.write_model(site.config, replace(file, weights=weights), path)  # type: ignore[arg-type]
    return path


def require_checkpoint_refused(world: World, *words: str) -> None:
    outcome = mosaic("run", str(SECOND), "-p", world.profile, "--json")
    assert outcome.code == 4, outcome.err
    told = plain(outcome.err)
    assert told["error"] == "CheckpointError"
    assert told["action"]
    for word in words:
        assert word in told["found"]
    with Catalog(world.catalog) as catalog:
        (run,) = catalog.runs(cycle=SECOND)
        assert run.state == "failed"
        assert words[0] in (run.error or "")
        assert catalog.claims() == ()


def test_every_missing_unexpected_and_misshapen_tensor_is_named(second: World) -> None:
    names = sorted(open_site(Profile.load(second.profile)).model.file.weights)
    gone, misshapen = names[0], names[1]
    path = weights_of(
        second, **{gone: None, misshapen: torch.zeros(3, 5), "stowaway": torch.zeros(2)}
    )
    second.write(weights=str(path))
    require_checkpoint_refused(
        second, f"missing {gone}", f"{misshapen} is (3, 5)", "unexpected stowaway (2,)"
    )


def test_weights_of_a_variant_on_another_grid_are_refused(second: World) -> None:
    path = weights_of(second)
    second.write(model={"grid": {"nlon": 36, "nlat": 19}}, weights=str(path))
    require_checkpoint_refused(second, "static is (24, 13, 2), expected (36, 19, 2)")


def test_status_tells_ages_and_failures(second: World) -> None:
    shown = mosaic("status", "-p", second.profile, "--json")
    assert shown.code == 0
    told = plain(shown.out)
    assert told["newest_published"] == FIRST.id
    assert [(r["cycle"], r["state"]) for r in told["runs"]] == [(FIRST.id, "published")]
    assert not told["stale"]
    old = mosaic("status", "-p", second.profile, "--max-age", "1", "--json")
    assert old.code == 10
    assert plain(old.out)["stale"]
    assert "older than 1 h" in old.err
    assert mosaic("status", "-p", second.profile, "--max-age", "1000000").code == 0
    missing = mosaic("run", str(SECOND.shift(600)), "-p", second.profile)
    assert missing.code == 3
    (failed, _) = plain(mosaic("status", "-p", second.profile, "--json").out)["runs"]
    assert failed["state"] == "failed"
    assert "no analysis" in failed["error"] or "not in" in failed["error"]


def test_status_of_a_site_that_never_published_is_not_good(world: World) -> None:
    assert mosaic("status", "-p", world.profile).code == 0
    assert mosaic("status", "-p", world.profile, "--max-age", "24", "--json").code == 10


def test_what_a_program_reads_is_json(second: World) -> None:
    profile = ("-p", second.profile, "--json")
    assert plain(mosaic("ingest", str(SECOND), *profile).out)["cycle"] == SECOND.id
    (listed,) = plain(mosaic("products", "ls", *profile).out)
    assert listed["cycle"] == FIRST.id
    assert plain(mosaic("products", "verify", *profile).out)["ok"] is True
    assert plain(mosaic("config", "show", *profile).out)["profile"]["name"] == "tiny"


def test_doctor_finds_a_sound_site_good(second: World) -> None:
    outcome = mosaic("doctor", "-p", second.profile, "--json")
    assert outcome.code == 0, outcome.out
    verdicts = {v["what"]: v["verdict"] for v in plain(outcome.out)}
    assert verdicts["store"] == verdicts["catalog"] == verdicts["source"] == "good"


@pytest.mark.parametrize(
    ("what", "settings"),
    [
        ("store", {"store": "/proc/no-such-folder"}),
        ("store", {"store": "ftp://example.invalid/x"}),
        ("catalog", {"catalog": "sqlite:////proc/no-such-folder/catalog.db"}),
        ("catalog", {"catalog": "postgresql://u:topsecret@127.0.0.1:1/none"}),
        ("source", {"source": {"kind": "zarr", "url": "/no/such/analyses.zarr"}}),
        ("source", {"source": {"kind": "zar", "url": "x"}}),
        ("products", {"products": ["statistic"]}),
        ("model", {"weights": "/no/such/weights.safetensors"}),
        ("device", {"device": "cuda:99"}),
    ],
)
def test_doctor_calls_what_is_broken_bad_and_looks_at_the_rest(
    what: str, settings: dict[str, object], world: World
) -> None:
    world.write(**settings)
    outcome = mosaic("doctor", "-p", world.profile, "--json")
    assert outcome.code == 10
    verdicts = plain(outcome.out)
    assert {v["what"] for v in verdicts if v["verdict"] == "bad"} >= {what}
    assert {v["what"] for v in verdicts} >= {"versions", "profile", "source", "store", "catalog"}
    assert "topsecret" not in outcome.out + outcome.err
    run = mosaic("run", str(FIRST), "-p", world.profile)
    assert run.code in (2, 3, 4, 6, 7)
    assert "topsecret" not in run.out + run.err


def test_secrets_are_not_shown(world: World) -> None:
    world.write(
        catalog="postgresql://mosaic:topsecret@db.example/mosaic",
        events={"webhook": "https://user:topsecret@hook.example/x", "secret": "topsecret"},
    )
    for words in (("--json",), ()):
        outcome = mosaic("config", "show", "-p", world.profile, *words)
        assert outcome.code == 0, outcome.err
        assert "db.example" in outcome.out
        assert "topsecret" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("-p", "demmo"), "did you mean 'demo'?"),
        (("--set", "memberz=3"), "did you mean 'members'?"),
        (("--set", "precision=float31"), "did you mean 'float32'?"),
        (("--set", "leave_out_checks=[tendenci]"), "did you mean 'tendency'?"),
        (("--set", "products=[statistic]"), "did you mean 'statistics'?"),
        (("--set", "members=0"), "one or more"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest_right_one(
    words: tuple[str, ...], hint: str, world: World
) -> None:
    profile = () if words[0] == "-p" else ("-p", world.profile)
    outcome = mosaic("run", str(FIRST), *profile, *words)
    assert outcome.code == 2, outcome.err
    assert hint in outcome.err
    assert not (Path(world.store) / "forecasts/v1/tiny/latest.json").exists()
