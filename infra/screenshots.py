"""Pictures of a run in the Prefect UI, for docs/operations.md.

    python infra/screenshots.py             # runs a cycle of the demo with `mosaic up`, then looks
    python infra/screenshots.py --url http://127.0.0.1:4200    # the newest cycle of a server

Needs Chromium (`apt-get install chromium`), and nothing else besides the project.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import itertools
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from websockets.sync.client import connect

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
SETTLE_SECONDS = 5
KINDS = {"summary": "markdown", "products": "table", "picture": "image", "progress": "progress"}


@contextlib.contextmanager
def demo(port: int, settings: list[str]) -> Iterator[str]:
    """A server that has run a cycle of the demo; its URL."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "mosaic_core.cli", "up", "--run"]
        process = subprocess.Popen(
            [*command, *settings, "--home", home, "--port", str(port)],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        line = ""
        try:
            for line in process.stdout:
                sys.stdout.write(line)
                if "Z demo" in line:
                    break
            if ": Completed" not in line:
                raise RuntimeError(f"the demo did not come through: {line}")
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


def chromium() -> str | None:
    """The program, where it is installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


@contextlib.contextmanager
def browser() -> Iterator[Callable[..., Any]]:
    """A headless Chromium; a function that sends it one command of the DevTools protocol."""
    program = chromium()
    if program is None:
        sys.exit("Chromium is not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            file = Path(folder, "DevToolsActivePort")
            wait(lambda: file.exists() and file.read_text().count("\n") >= 1, "Chromium")
            port = file.read_text().split()[0]
            pages = httpx.get(f"http://127.0.0.1:{port}/json", timeout=60).json()
            page = next(entry for entry in pages if entry["type"] == "page")
            with connect(page["webSocketDebuggerUrl"], max_size=None) as socket:
                numbers = itertools.count(1)

                def send(method: str, **parameters: Any) -> Any:
                    number = next(numbers)
                    socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
                    while True:
                        answer = json.loads(socket.recv())
                        if answer.get("id") == number:
                            return answer.get("result", {})

                yield send
        finally:
            process.terminate()
            process.wait()


def wait(condition: Callable[[], Any], what: str, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.5)


def says(text: str) -> str:
    """Whether a page shows a text, in JavaScript."""
    return f"document.body.innerText.toLowerCase().includes({json.dumps(text.lower())})"


HAS_PICTURE = "[...document.images].some(i => i.src.startsWith('data:') && i.naturalWidth > 500)"


SHOWN = {
    "summary": says("Good: published whole"),
    "products": says("statistics"),
    "picture": HAS_PICTURE,
    "progress": says("Progress: 100%"),
}
"""What is true of the page of an artifact once it is drawn."""


def visit(send: Callable[..., Any], url: str, condition: str, height: int = 1000) -> None:
    """Draw a page and wait until a condition in JavaScript is true of it."""
    shape = {"width": 1280, "height": height, "deviceScaleFactor": 1, "mobile": False}
    send("Emulation.setDeviceMetricsOverride", **shape)
    send("Page.navigate", url=url)

    def shown() -> bool:
        found = send("Runtime.evaluate", expression=condition)
        return bool(found.get("result", {}).get("value"))

    wait(shown, f"{condition} at {url}")


def picture(send: Callable[..., Any], url: str, name: str, condition: str, height: int) -> None:
    """Keep a page of which a condition is true as a small PNG."""
    visit(send, url, condition, height)
    data = _settled(lambda: base64.b64decode(send("Page.captureScreenshot", format="png")["data"]))
    with Image.open(io.BytesIO(data)) as image:
        out = io.BytesIO()
        image.convert("RGB").quantize(128).save(out, "PNG", optimize=True)
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / f"ui-{name}.png").write_bytes(out.getvalue())
    sys.stdout.write(f"docs/figures/ui-{name}.png {len(out.getvalue()) // 1000} kB\n")


def _settled(look: Callable[[], bytes]) -> bytes:
    """A picture that has not changed for a while: graphs and logs come after the page."""
    pictures = [look()]

    def same() -> bool:
        time.sleep(SETTLE_SECONDS)
        pictures.append(look())
        return len(pictures) > 3 and pictures[-1] == pictures[-2]

    wait(same, "a page that does not change any more")
    return pictures[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--port", type=int, default=4287)
    parser.add_argument("--set", action="append", default=[], help="as `mosaic up` takes it")
    given = parser.parse_args()
    settings = [word for one in given.set for word in ("--set", one)]
    with contextlib.nullcontext(given.url) if given.url else demo(given.port, settings) as url:
        run = newest_run(url)
        found = artifacts(url, run["id"])
        page = f"{url}/runs/flow-run/{run['id']}"
        with browser() as send:
            picture(send, page, "run", says("ingest took"), 900)
            for name, kind in KINDS.items():
                one = next(entry for entry in found if entry["type"] == kind)
                where = f"{url}/artifacts/artifact/{one['id']}"
                picture(send, where, name, SHOWN[name], 1000)


if __name__ == "__main__":
    main()
