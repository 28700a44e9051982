"""`mosaic model`: fetch, convert and inspect weights, and their card."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from mosaic_core.cli.options import AsJson
from mosaic_core.errors import CheckpointError, ConfigurationError

app = typer.Typer(help="Weights: fetch, convert, inspect, card.", no_args_is_help=True)
_COMMIT = re.compile(r"^[0-9a-f]{40}$")


@app.command()
def fetch(
    variant: Annotated[str, typer.Argument(help="A published variant: era5 or hres.")],
    into: Annotated[Path, typer.Option(help="Folder to download into.")] = Path("weights"),
    revision: Annotated[
        str | None, typer.Option(help="Commit of the repository (40 hexadecimal digits).")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Digest that the file must have.")] = None,
) -> None:
    """Download a published checkpoint from Hugging Face, at a pinned revision."""
    from mosaic_core.model.checkpoint import file_sha256
    from mosaic_core.model.config import ModelConfig

    published = ModelConfig.load(variant).published
    if published is None:
        raise ConfigurationError(f"{variant!r} is not a published variant", "era5 or hres")
    revision = revision or published.revision
    if revision is None or not _COMMIT.match(revision):
        raise ConfigurationError(
            f"no pinned revision of {published.repository} ({revision!r})",
            "a full commit of the repository, so that the same weights come every time",
            f"give --revision, or write `revision:` into config/models/{variant}.yaml",
        )
    from huggingface_hub import HfApi, hf_hub_download

    typer.echo(f"{published.checkpoint} is licensed {published.licence}: {published.attribution}")
    try:
        listed = HfApi().get_paths_info(
            published.repository, [published.checkpoint], revision=revision
        )
        file = hf_hub_download(
            published.repository, published.checkpoint, revision=revision, local_dir=into
        )
    except Exception as error:  # the hub's client raises errors of several libraries
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{published.repository} cannot be fetched: {type(error).__name__}: {reason}",
            f"{published.checkpoint} at {revision}",
            "check the network and the revision; on a host without a network copy the file there",
        ) from error
    lfs = getattr(listed[0], "lfs", None) if listed else None
    expected = sha256 or published.sha256 or (lfs.sha256 if lfs else None)
    found = file_sha256(Path(file))
    if expected is None:
        raise CheckpointError(f"no digest is known of {file}", "--sha256", f"it has {found}")
    if found != expected:
        Path(file).unlink()
        raise CheckpointError(f"{file} has sha256 {found}", expected, "fetch it again")
    typer.echo(f"{file}\nsha256 {found}\nnext: mosaic model convert {variant} {file} ...")


@app.command()
def convert(
    variant: Annotated[str, typer.Argument(help="Name in config/models, or a YAML file.")],
    checkpoint: Annotated[Path, typer.Argument(help="The published .pt file.")],
    normalisation: Annotated[Path, typer.Option(help="The .npz of state_mean and state_std.")],
    static: Annotated[Path, typer.Option(help="The .npz of static fields.")],
    output: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
) -> None:
    """Turn a published checkpoint and its two data files into one safetensors file."""
    from mosaic_core.model import checkpoint as files
    from mosaic_core.model.config import ModelConfig

    config = ModelConfig.load(variant)
    target = output or checkpoint.with_suffix(".safetensors")
    files.convert(config, checkpoint, normalisation, static, target)
    typer.echo(f"{target}\nsha256 {files.file_sha256(target)}")


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A .safetensors or .pt file.")],
    variant: Annotated[
        str | None, typer.Option(help="Check it against this configuration.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a weights file holds, and whether it fits a variant."""
    from mosaic_core.model import checkpoint as files
    from mosaic_core.model.config import ModelConfig

    if path.suffix == ".safetensors":
        file = files.read_model(path)
        weights, tables, metadata = file.weights, file.tables, file.metadata
        if variant:
            files.require_fit(ModelConfig.load(variant), file)
    else:
        weights, tables = files.read_published(path)
        metadata = {"trained": "true"}
        if variant:
            files.require_names(ModelConfig.load(variant), weights)
    summary = {
        "file": str(path),
        "sha256": files.file_sha256(path),
        "tensors": len(weights),
        "parameters": sum(w.numel() for w in weights.values()),
        "tables": sorted(tables),
        "fits": variant,
        **{k: v for k, v in metadata.items() if k != "config"},
    }
    if as_json:
        if "training" in summary:
            summary["training"] = json.loads(metadata["training"])
        typer.echo(json.dumps(summary))
        return
    if summary.pop("training", None) is not None:
        from mosaic_core.training.card import summary as told

        summary |= told(metadata)
    for key, value in summary.items():
        typer.echo(f"{key:15} {value}")


@app.command()
def card(
    path: Annotated[Path, typer.Argument(help="A .safetensors file.")],
    output: Annotated[Path | None, typer.Option(help="Write it here instead.")] = None,
) -> None:
    """Print the model card: data, training, scores, licence, limits; from the file alone."""
    from mosaic_core.model import checkpoint as files
    from mosaic_core.training.card import card as text_of
    from mosaic_core.training.log import put

    text = text_of(files.read_model(path))
    if output is None:
        typer.echo(text, nl=False)
    else:
        put(output, text.encode())
