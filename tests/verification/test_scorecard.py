"""Pages of forecasts that were run, published and verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError
from mosaic_core.pipeline.scorecard import Valid, make_page
from mosaic_core.pipeline.site import Site
from mosaic_core.pipeline.verification import verify_due
from tests.verification.test_due import told


def test_the_page_of_a_day_is_made_of_what_came_true_on_it(site: Site, newest: Cycle) -> None:
    valid = Valid.parse(f"{newest.init_time:%Y-%m-%d}")
    with pytest.raises(ConfigurationError, match="has scores against"):
        make_page(site, site.source.name, valid)
    verify_due(site, newest)
    page = make_page(site, site.source.name, valid)
    assert page.sections[0].heading == "Scores"
    assert {"Against persistence", "Rank histograms", "Drift"} <= {s.heading for s in page.sections}
    assert page.sections[0].table is not None
    assert ("2t (K)", "12 h") in {row[:2] for row in page.sections[0].table.rows}


def test_the_command_makes_pages(world: Any, newest: Cycle, tmp_path: Path) -> None:
    where = ("-p", world.profile)
    told("verify", str(newest), *where)
    month = f"{newest.init_time:%Y-%m}"
    pages = Path(world.store, "verification/v1/tiny/made-up/pages")
    day = f"{newest.init_time:%Y-%m-%d}"
    assert {page.name for page in pages.iterdir()} == {
        f"{name}.{kind}" for name in (month, day) for kind in ("html", "md")
    }  # fmt: skip
    told("scorecard", month, *where, "--output", str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text() == (pages / f"{month}.html").read_text()
