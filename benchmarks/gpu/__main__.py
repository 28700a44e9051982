"""See the package; prints one table at the end."""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gpu.machine import machine
from benchmarks.gpu.protocol import SECTIONS, run
from benchmarks.gpu.table import decisions, table
from benchmarks.record import RESULTS, commit


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    names = [section.name for section in SECTIONS]
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu_CHIP_DATE.json")
    parser.add_argument("--sections", default=",".join(names), help=f"of {', '.join(names)}")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--scale", choices=("full", "tiny"), default="full")
    parser.add_argument("--commit", default=commit(), help="where the copy is no git checkout")
    given = parser.parse_args()
    wanted = given.sections.split(",")
    if set(wanted) - set(names):
        parser.error(f"no section {', '.join(sorted(set(wanted) - set(names)))}")
    now, found = datetime.now(UTC), machine()
    if given.scale == "full" and found["chip"] == "cpu":
        parser.error("no CUDA device; --scale tiny runs the same code on a CPU")
    chip = re.sub(r"\W+", "_", str(found["chip"])).lower()
    name = f"gpu_{chip}_{now:%Y-%m-%d}.json"
    head = {
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
        "date": now.strftime("%Y-%m-%dT%H:%MZ"),
        "commit": given.commit,
        "scale": given.scale,
        **found,
    }
    target = given.out or RESULTS / name
    chosen = [section for section in SECTIONS if section.name in wanted]
    document = run(chosen, head, target, scale=given.scale, seconds=60 * given.minutes)
    print(table(document))
    for line in decisions(document):
        print(line)


if __name__ == "__main__":
    main()
