"""JSON that is whole at any moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(path: Path, document: dict[str, Any]) -> None:
    """Replace the file in one move."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def read(path: Path) -> dict[str, Any]:
    """An empty document where nothing was written yet."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
