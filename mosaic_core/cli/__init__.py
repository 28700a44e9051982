"""The `mosaic` command.

Exit codes: 0 done; 1 something unforeseen; 2 configuration or command line; 3 analysis; 4 model or
device; 5 forecast; 6 store; 7 catalog; 8 another run holds the cycle; 9 publication; 10 a verdict
of `doctor`, `status` or `products verify` that is not good; 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Annotated

import typer

from mosaic_core import __version__
from mosaic_core.cli import (
    alerts,
    catalog,
    demo,
    doctor,
    model,
    products,
    recovery,
    run,
    server,
    show,
    simulate,
    status,
    train,
    verify,
)
from mosaic_core.cli.options import Told
from mosaic_core.errors import MosaicError

INTERRUPTED = 130
app = typer.Typer(
    help="Ensemble weather forecasts with Mosaic: from an analysis to published products.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 2 configuration, 3 analysis, 4 model, 5 forecast, 6 store, 7 catalog, "
    "8 busy, 9 publication, 10 not good.",
)
demo.add_to(app)
run.add_to(app)
verify.add_to(app)
status.add_to(app)
recovery.add_to(app)
server.add_to(app)
alerts.add_to(app)
doctor.add_to(app)
simulate.add_to(app)
train.add_to(app)
app.add_typer(model.app, name="model")
app.add_typer(products.app, name="products")
app.add_typer(catalog.app, name="catalog")
app.add_typer(show.config_app, name="config")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mosaic-forecast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)sZ %(levelname)s %(name)s: %(message)s",
    )
    logging.Formatter.converter = time.gmtime


def main() -> None:
    """Run the command; an error of this project becomes its message and exit code."""
    try:
        app()
    except MosaicError as error:
        _explain(error)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED and not isinstance(end, Told):
            typer.echo("interrupted; the same command goes on where it stopped", err=True)
        raise


def _explain(error: MosaicError) -> None:
    if "--json" in sys.argv:
        document = {
            "error": type(error).__name__,
            "found": error.found,
            "expected": error.expected,
            "action": error.action,
            "exit_code": error.exit_code,
        }
        typer.echo(json.dumps(document), err=True)
        return
    lines = [f"{type(error).__name__}: {error.found}"]
    if error.expected:
        lines.append(f"  expected:   {error.expected}")
    if error.action:
        lines.append(f"  what to do: {error.action}")
    typer.echo("\n".join(lines), err=True)


if __name__ == "__main__":
    main()
