"""Pictures of a run in the Prefect UI, for docs/operations.md.

    python infra/screenshots.py             # runs a cycle of the demo with `mosaic up`, then looks
    python infra/screenshots.py --url http://127.0.0.1:4200    # the newest cycle of a server

Needs Chromium (`apt-get install chromium`), and nothing else besides the project.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
WAIT_MILLISECONDS = 25_000
KINDS = {"summary": "markdown", "products": "table", "picture": "image", "progress": "progress"}


@contextlib.contextmanager
def demo(port: int) -> Iterator[str]:
    """A server that has run a cycle of the demo; its URL."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "mosaic_core.cli", "up", "--run"]
        process = subprocess.Popen(
            [*command, "--home", home, "--port", str(port)],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                sys.stdout.write(line)
                if ": Completed" in line:
                    break
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def newest_run(url: str) -> dict[str, Any]:
    body = {"flows": {"name": {"any_": ["run-cycle"]}}, "sort": "END_TIME_DESC", "limit": 1}
    answer = httpx.post(f"{url}/api/flow_runs/filter", json=body, timeout=60)
    return dict(answer.raise_for_status().json()[0])


def artifacts(url: str, run: str) -> list[dict[str, Any]]:
    body = {"artifacts": {"flow_run_id": {"any_": [run]}}, "sort": "KEY_ASC", "limit": 50}
    answer = httpx.post(f"{url}/api/artifacts/filter", json=body, timeout=60)
    return list(answer.raise_for_status().json())


def picture(url: str, name: str, height: int) -> None:
    """Let Chromium draw a page, and keep it as a small PNG."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("Chromium is not installed")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.png"
        subprocess.run(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={folder}/profile", f"--window-size=1280,{height}",
             f"--virtual-time-budget={WAIT_MILLISECONDS}", f"--screenshot={raw}", url],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        with Image.open(raw) as image:
            out = io.BytesIO()
            image.convert("RGB").quantize(128).save(out, "PNG", optimize=True)
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / f"ui-{name}.png").write_bytes(out.getvalue())
    sys.stdout.write(f"docs/figures/ui-{name}.png {len(out.getvalue()) // 1000} kB\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--port", type=int, default=4287)
    given = parser.parse_args()
    with contextlib.nullcontext(given.url) if given.url else demo(given.port) as url:
        run = newest_run(url)
        found = artifacts(url, run["id"])
        picture(f"{url}/runs/flow-run/{run['id']}", "run", 900)
        picture(f"{url}/runs/flow-run/{run['id']}?tab=Artifacts", "artifacts", 1000)
        for name, kind in KINDS.items():
            one = next(entry for entry in found if entry["type"] == kind)
            picture(f"{url}/artifacts/artifact/{one['id']}", name, 1000)


if __name__ == "__main__":
    main()
