"""`mosaic doctor`: what is there, a plain verdict on each, and what to do."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, get_args

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName
from mosaic_core.errors import MosaicError
from mosaic_core.profile import Profile


@dataclass(frozen=True)
class Verdict:
    """One finding: `note` says something worth knowing that is no fault."""

    what: str
    verdict: Literal["good", "note", "bad"]
    found: str
    action: str = ""


def add_to(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    profile: ProfileName = "demo", overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Look at device, kernels, model, source, store, catalog and versions."""
    verdicts = list(examine(profile, overrides or []))
    if as_json:
        typer.echo(json.dumps([asdict(verdict) for verdict in verdicts]))
    else:
        _show(verdicts)
    if any(verdict.verdict == "bad" for verdict in verdicts):
        raise typer.Exit(10)


def examine(profile: str, overrides: list[str]) -> Iterator[Verdict]:
    """Every finding; one that fails does not keep the others from being looked at."""
    yield _versions()
    try:
        settings = Profile.load(profile, overrides)
    except MosaicError as error:
        yield _bad("profile", error)
        return
    yield Verdict("profile", "good", f"{settings.name}: {settings.description}")
    examinations: tuple[tuple[str, Callable[[Profile], Iterator[Verdict]]], ...] = (
        ("device", _device),
        ("kernels", _kernels),
        ("model", _model),
        ("source", _source),
        ("store", _store),
        ("catalog", _catalog),
        ("products", _products),
    )
    for what, look in examinations:
        try:
            yield from look(settings)
        except MosaicError as error:
            yield _bad(what, error)


def _bad(what: str, error: MosaicError) -> Verdict:
    return Verdict(what, "bad", f"{error.found}; expected: {error.expected}", error.action)


def _versions() -> Verdict:
    found = [f"python {platform.python_version()}"]
    for package in (
        "mosaic-forecast",
        "torch",
        "triton",
        "flash-attn",
        "xarray",
        "zarr",
        "prefect",
    ):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} absent")
    good = sys.version_info >= (3, 11)
    return Verdict("versions", "good" if good else "bad", ", ".join(found))


def _device(profile: Profile) -> Iterator[Verdict]:
    import psutil
    import torch

    from mosaic_core.model.checkpoint import pick_device

    device = pick_device(profile.device)
    memory = psutil.virtual_memory()
    cpu = f"{psutil.cpu_count(logical=False)} cores, {memory.available / 1e9:.0f} GB free"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        yield Verdict("device", "good", f"{name}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free")
    else:
        yield Verdict(
            "device", "note", f"CPU: {cpu}", "a full-size ensemble in minutes needs a CUDA device"
        )


def _kernels(profile: Profile) -> Iterator[Verdict]:
    import torch

    from mosaic_core.kernels import dispatch
    from mosaic_core.model.checkpoint import pick_device
    from mosaic_core.model.config import ModelConfig
    from mosaic_core.model.forward import not_fused

    device = pick_device(profile.device)
    dtype = torch.float32 if profile.precision == "float32" else torch.float16
    probe = torch.zeros(1, dtype=dtype, device=device)
    with dispatch.forced_backend(None if profile.require else profile.backend):
        chosen = dispatch.choose("model", probe)
        reason = not_fused(ModelConfig.load(profile.model), device, profile.precision)
    found = [f"{chosen} runs", f"module by module: {reason}" if reason else "fused network"]
    found += [
        f"{name} declined: {why}"
        for name in get_args(dispatch.Backend)
        if (why := dispatch.declined(name, probe))
    ]
    action = ""
    if profile.require not in (None, chosen):
        action = f"this profile requires {profile.require}"
    elif profile.precision == "int8" and reason:
        action = "8-bit linear maps need the fused network: set `precision: float16`"
    yield Verdict("kernels", "bad" if action else "good", "; ".join(found), action)


def _model(profile: Profile) -> Iterator[Verdict]:
    from mosaic_core.model import checkpoint
    from mosaic_core.model.config import ModelConfig

    config = ModelConfig.load(profile.model)
    parameters = sum(_size(shape) for shape in checkpoint.parameter_shapes(config).values())
    text = f"{config.name}: {parameters / 1e6:.1f} M parameters, {config.step_hours} h steps"
    path = profile.weights_file
    if path is None:
        yield Verdict(
            "model", "note", f"{text}, untrained weights: not a forecast",
            "`mosaic model fetch` and `convert`, then `weights:` in the profile",
        )  # fmt: skip
        return
    file = checkpoint.read_model(path)
    checkpoint.require_fit(config, file)
    yield Verdict("model", "good", f"{text}, {profile.weights}")


def _size(shape: tuple[int, ...]) -> int:
    product = 1
    for n in shape:
        product *= n
    return product


def _source(profile: Profile) -> Iterator[Verdict]:
    from mosaic_core.analysis.sources.registry import make_source

    source = make_source(profile.source)
    found = f"{profile.source['kind']} as {source.name!r}"
    look = getattr(source, "look", None)  # those of files; a mirror is asked when a cycle is due
    yield Verdict("source", "good", f"{found}, {look()}" if look else found)


def _store(profile: Profile) -> Iterator[Verdict]:
    import shutil
    import uuid

    from mosaic_core.storage import open_store

    store = open_store(profile.store)
    key = f"doctor-{uuid.uuid4().hex}"
    store.put(key, b"written by mosaic doctor\n")
    try:
        store.get(key)
    finally:
        store.delete(key)
    found = f"{store.url()} can be written and read"
    if store.folder is not None:
        free = shutil.disk_usage(store.folder).free / 1e9
        found += f", {free:.0f} GB free"
    yield Verdict("store", "good", found)


def _catalog(profile: Profile) -> Iterator[Verdict]:
    from mosaic_core.catalog.catalog import Catalog

    with Catalog(profile.catalog) as catalog:
        runs = len(catalog.runs())
        yield Verdict(
            "catalog", "good", f"{catalog!r}, schema {catalog.schema_version()}, {runs} runs"
        )


def _products(profile: Profile) -> Iterator[Verdict]:
    from mosaic_core.products.product import load_products

    products = load_products(list(profile.products))
    yield Verdict("products", "good", ", ".join(product.id for product in products))


def _show(verdicts: list[Verdict]) -> None:
    from rich.console import Console
    from rich.table import Table

    colours = {"good": "green", "note": "yellow", "bad": "red"}
    table = Table("what", "verdict", "found", "what to do", show_lines=False)
    for verdict in verdicts:
        colour = colours[verdict.verdict]
        table.add_row(
            verdict.what, f"[{colour}]{verdict.verdict}[/]", verdict.found, verdict.action
        )
    Console().print(table)
