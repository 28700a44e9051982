"""The GPU protocol, run dry: the same code at tiny scale on a CPU."""

from __future__ import annotations

import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import operations
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.measuring import Scale, poisoned
from benchmarks.gpu.networks import TINY, inputs, model
from benchmarks.gpu.protocol import SECTIONS, Section, run
from benchmarks.gpu.section import measured
from benchmarks.gpu.sections import correctness
from benchmarks.gpu.straightforward import block_of, straightforward, weights_of
from benchmarks.gpu.table import decisions, speed_up, table
from benchmarks.scaling import exponent
from mosaic_core.model.checkpoint import parameter_shapes
from mosaic_core.model.config import ModelConfig

TIMED = {"ms", "ms_range", "calls", "members"}
RATED = TIMED | {"tflop", "tflop_per_s", "effective"}
JUDGED = {"max_rel", "rms_rel"}
KEYS = {
    "correctness": JUDGED | {"limit", "right"},
    "ceilings": {"ms", "calls"},
    "attention": TIMED,
    "feed_forward": RATED | JUDGED | {"peak_gb", "baseline"},
    "interpolation": TIMED | JUDGED | {"peak_gb", "baseline", "gb_per_s"},
    "step": RATED | {"peak_gb", "baseline", "forecast_seconds"},
    "accuracy": JUDGED | {"lists_different"},
    "rollout": {"seconds", "members", "steps", "ms", "peak_gb", "output_gb"},
    "training": RATED | {"peak_gb", "loss", "gradient_norm"},
}
ENTRIES = {
    "ceilings": {"copy", "float16_64", "int8_768_to_6144", "float8_3072_to_768"},
    "attention": {"separate", "flex", "dense_one_member", "ours", "ours_3", "ours_clustered"},
    "feed_forward": {"separate", "compiled", "ours", "ours_int8"},
    "interpolation": {"to_mesh_straightforward", "to_mesh_ours", "to_grid_ours"},
    "step": {"straightforward", "ours", "ours_int8", "ours_one_member"},
    "accuracy": {"overlap", "modules_float16_lists_free", "ours_int8_lists_forced"},
    "rollout": {"ours_float16", "ours_int8", "rounding_modules", "rounding_ours_int8"},
    "training": {"blocked", "ours"},
    "correctness": {"selected_attention_float32", "gradients_float16", "int8"},
}
HEAD = {
    "chip": "none", "versions": {"torch": "1", "triton": "1"}, "commit": "c", "date": "d",
    "scale": "tiny",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", [section.name for section in SECTIONS if section.name in KEYS])
def test_section_measures_every_entry(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    module = next(section.module for section in SECTIONS if section.name == name)
    entries = dict(measured(module, Scale.named("tiny")))
    failed = {entry: found["failed"] for entry, found in entries.items() if "failed" in found}
    assert not failed
    assert ENTRIES[name] <= set(entries)
    for entry, found in entries.items():
        keys = JUDGED | {"steps"} if entry.startswith("rounding") else KEYS[name]
        assert keys <= set(found) or entry == "overlap", entry
        assert found.get("right", True), (entry, found)
        assert all(math.isfinite(v) for v in found.values() if isinstance(v, float)), entry
        if "int8" not in entry:
            assert found.get("max_rel", 0.0) < 1e-2, (entry, found)
    json.dumps(entries)


@pytest.mark.slow
def test_kernels_are_right_in_the_interpreter() -> None:
    scale = Scale.named("tiny")
    if scale.backend != "triton":
        pytest.skip("a GPU is here: the protocol itself checks the kernels on it")
    entries = dict(measured(correctness.__name__, scale))
    assert ENTRIES["correctness"] <= set(entries)
    assert [found for found in entries.values() if not found.get("right")] == []


def test_checks_run_in_processes_that_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    found = correctness.compile_together(Scale.named("tiny"), 1, 600.0)
    assert found["ran"] == found["checks"] == len(list(correctness.checks(Scale.named("tiny"))))


def fake(folder: Path, name: str, body: str) -> Section:
    (folder / f"{name}.py").write_text(body)
    return Section(name, name, 600.0)


def test_a_section_that_fails_or_hangs_is_recorded_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent.parent}")
    one = "yield 'one', lambda: {'ms': 2.0, 'members': 1}\n    "
    dies = fake(
        tmp_path, "dies", f"import os\ndef run(scale):\n    {one}print('bad end'); os._exit(3)\n"
    )
    raises = fake(
        tmp_path, "raises",
        f"def run(scale):\n    yield 'bad', lambda: 1 / 0\n    {one}pass\n",
    )  # fmt: skip
    absent = fake(tmp_path, "absent", "import no_such_package\n")
    hangs = fake(tmp_path, "hangs", "def run(scale):\n    while True: pass\n    yield\n")
    hangs = Section(hangs.name, hangs.module, 3.0)
    target = tmp_path / "out.json"
    document = run([dies, hangs, raises, absent], HEAD, target, scale="tiny", seconds=2000)
    found = document["sections"]
    assert found["dies"]["status"] == "failed"
    assert "exit code 3" in found["dies"]["reason"]
    assert found["dies"]["entries"] == {"one": {"ms": 2.0, "members": 1}}
    assert found["hangs"]["status"] == "timed out"
    assert found["raises"]["status"] == "done"
    assert "ZeroDivisionError" in found["raises"]["entries"]["bad"]["failed"]
    assert found["raises"]["entries"]["one"]["ms"] == 2.0
    assert found["absent"]["status"] == "skipped"
    assert "no_such_package" in found["absent"]["reason"]
    assert json.loads(target.read_text()) == document
    text = table(document)
    for words in ("dies", "timed out", "failed: ZeroDivisionError", "no_such_package"):
        assert words in text


def test_sections_up_to_the_step_fit_nine_minutes_at_worst() -> None:
    names = [section.name for section in SECTIONS]
    assert names[:5] == ["correctness", "ceilings", "attention", "feed_forward", "step"]
    assert sum(section.seconds for section in SECTIONS[:5]) <= 540


def test_sections_beyond_the_time_are_named_and_not_begun(tmp_path: Path) -> None:
    document = run(SECTIONS, HEAD, tmp_path / "out.json", scale="tiny", seconds=0.0)
    assert {s["status"] for s in document["sections"].values()} == {"not run"}


def test_command_writes_a_document_and_prints_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    target = tmp_path / "gpu.json"
    arguments = [
        "--scale",
        "tiny",
        "--sections",
        "first_step",
        "--out",
        str(target),
        "--commit",
        "x",
    ]
    monkeypatch.setattr(sys, "argv", ["gpu", *arguments])
    main()
    document = json.loads(target.read_text())
    assert document["commit"] == "x"
    assert {"chip", "versions", "date", "command"} <= set(document)
    found = document["sections"]["first_step"]
    assert found["status"] == "done"
    assert {"seconds", "first_step_seconds"} <= set(found["entries"]["empty_cache"])
    assert "empty_cache" in capsys.readouterr().out


def test_a_full_run_needs_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit):
        main()


def test_decisions_follow_from_what_was_measured() -> None:
    own = {"ms": 1.0, "members": 4, "tflop_per_s": 300.0, "effective": False}
    flattered = own | {"tflop_per_s": 420.0, "effective": True}
    document: dict[str, Any] = {
        **HEAD,
        "sections": {
            "ceilings": {"entries": {"float16_8192": {"tflop_per_s": 800.0}}},
            "attention": {"entries": {"ours": own, "ours_overlap_8": flattered}},
            "accuracy": {"entries": {"overlap": {"blocks_by_stage": {"nside 64": 0.5}}}},
            "step": {"entries": {"ours": flattered | {"tflop_per_s": 480.0}}},
        },
    }
    attention, overlap, step = decisions(document)
    assert "300 TFLOP/s" in attention
    assert "read the SASS" in attention
    assert "0.50 selected blocks" in overlap
    assert "only trained ones decide" in overlap
    assert "60% of the measured ceiling, effective" in step
    document["sections"]["attention"]["entries"]["ours_24"] = own | {"tflop_per_s": 420.0}
    assert "420 TFLOP/s (limit 360): tune by measurement" in decisions(document)[0]
    for section in document["sections"].values():
        section["status"] = "done"
    lines = {line.split()[1]: line for line in table(document).splitlines()}
    assert "420 effective" in lines["ours_overlap_8"]
    assert "effective" not in lines["ours_24"]


def test_straightforward_block_is_the_block() -> None:
    torch.manual_seed(0)
    network, stage = model(Scale.named("tiny")).network.double(), TINY.stages[0]
    block, rotary = network.encoder_stages[0].blocks[0], network.encoder_stages[0].rotary
    x = torch.randn(2, stage.tokens, stage.dim, dtype=torch.float64)
    z = torch.randn(2, TINY.noise_dim, dtype=torch.float64)
    with torch.no_grad():
        found = block_of(stage)(weights_of(block), x, z, rotary)
        torch.testing.assert_close(found, block(x, z, rotary))


def test_straightforward_network_compiles_without_a_graph_break() -> None:
    torch.manual_seed(0)
    scale = Scale.named("tiny")
    whole = partial(torch.compile, backend="aot_eager", fullgraph=True, dynamic=False)
    network = model(scale).network
    given = inputs(scale, TINY, 2)
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    found = straightforward(network, whole)(*given)
    assert counters["stats"]["unique_graphs"] == len(TINY.stages) + 2  # gathers to mesh and to grid
    assert not counters["graph_break"]
    eager = straightforward(network, lambda function: function)(*given)
    torch.testing.assert_close(found, eager, rtol=0, atol=0.05)


def test_speed_up_is_that_of_one_member() -> None:
    entry = {"ms": 1.0, "members": 4, "baseline": "plain"}
    assert speed_up({"plain": {"ms": 6.0, "members": 2}}, entry) == 12.0


def test_operations_are_those_counted_on_the_published_model() -> None:
    """The counts of an operator-level counter on the published models, GFLOP a member-step."""
    hres = {
        name: count / 1e9
        for name, count in operations.member_step(ModelConfig.load("hres")).items()
    }
    assert sum(hres.values()) == pytest.approx(12_736, abs=1)
    assert hres["preprocess"] == pytest.approx(49.3, abs=0.05)
    assert hres["feed_forward"] == pytest.approx(4174.7 + 1855.4 + 241.6, abs=0.2)
    assert hres["local"] == pytest.approx(927.7 + 309.2 + 32.2, abs=0.2)
    assert hres["selected"] == pytest.approx(2783.1 + 463.9 + 16.1, abs=0.2)
    assert hres["resampling"] == pytest.approx(2 * 109.5 + 0.4 + 1.2, abs=0.2)
    era5 = operations.member_step(ModelConfig.load("era5"))
    assert sum(era5.values()) / 1e9 == pytest.approx(12_731, abs=1)


def test_parameters_are_those_of_the_network() -> None:
    config = ModelConfig.load("small")
    shapes = parameter_shapes(config).values()
    assert operations.parameters(config) == sum(math.prod(shape) for shape in shapes)
    assert operations.parameters(ModelConfig.load("hres")) == pytest.approx(214e6, rel=0.005)


def test_poisoned_memory_holds_nan() -> None:
    with poisoned():
        assert torch.empty(100).isnan().all()


@pytest.mark.parametrize(("name", "ratio"), [("half_degree", 4), ("quarter_degree", 16)])
def test_finer_models_cost_no_more_a_token(name: str, ratio: int) -> None:
    fine, hres = ModelConfig.load(name), ModelConfig.load("hres")
    assert fine.stages[0].tokens == ratio * hres.stages[0].tokens
    assert operations.parameters(fine) == operations.parameters(hres)
    costs = [sum(operations.member_step(c).values()) / c.stages[0].tokens for c in (fine, hres)]
    assert costs[0] == pytest.approx(costs[1], rel=0.03)


@pytest.mark.parametrize(("power", "noise"), [(1.0, 0.0), (2.0, 0.1)])
def test_exponent_of_a_power_law(power: float, noise: float) -> None:
    series = {
        str(n): {"tokens": n, "seconds": n**power * (1 + noise * (-1) ** i)}
        for i, n in enumerate((3072, 12288, 49152, 196608))
    }
    series["late"] = {"missing": "not done"}
    found = exponent(series, "seconds")
    assert found == pytest.approx(power, abs=noise + 1e-9)
    assert exponent({"one": series["3072"]}, "seconds") is None
