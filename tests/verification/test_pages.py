"""Pages of scores: what stands on them, and how a reference is compared with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.pipeline.scorecard import Valid, make_page, write_page
from mosaic_core.storage import open_store
from mosaic_core.verification.page import Page, Section, Table

FIRST = Cycle.parse("2026-03-01T00Z")
TRUTH = "analyses"


def test_a_day_and_a_month_are_of_valid_times() -> None:
    day, month = Valid.parse("2026-03-28"), Valid.parse("2026-12")
    assert (day.name, month.name) == ("2026-03-28", "2026-12")
    assert month.end.isoformat() == "2027-01-01T00:00:00+00:00"
    cycle = Cycle.parse("2026-03-27T12Z")
    assert [day.holds(cycle, hours) for hours in (6, 12, 30, 36)] == [False, True, True, False]
    for wrong in ("2026", "2026-13", "2026-02-30", "soon"):
        with pytest.raises(ConfigurationError, match="a day or a month"):
            Valid.parse(wrong)


def test_html_needs_no_other_file_and_markdown_has_the_tables() -> None:
    table = Table(("", "RMSE"), (("z500 <m>", "12|3"),))
    page = Page("A & B", "of a day", ("untrained",), (
        Section("Scores", "in <numbers>", table=table), Section("Picture", "seen", b"\x89PNG"),
    ))  # fmt: skip
    html, text = page.html(), page.markdown()
    assert "<td>z500 &lt;m&gt;</td>" in html
    assert "A &amp; B" in html
    assert 'src="data:image/png;base64,' in html
    assert not re.search(r"(src|href)=\"?(?!data:|\")", html)
    assert "| z500 <m> | 12\\|3 |" in text
    assert "**untrained**" in text
    assert "Picture" not in text


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Any]:
    """What a page needs of a site: a catalog, a store and a grid."""
    config = SimpleNamespace(name="tiny", lat_lon=LatLonGrid.with_poles(24, 13))
    with Catalog(f"sqlite:///{tmp_path}/catalog.sqlite") as catalog:
        yield SimpleNamespace(
            config=config, catalog=catalog, store=open_store(str(tmp_path / "store")), source=None
        )


def rows(model: str, error: float, seed: int, **more: float) -> list[dict[str, Any]]:
    """Scores of 40 daily forecasts whose weather is the same for every model."""
    rng, weather = np.random.default_rng(seed), np.random.default_rng(0).normal(size=40)
    found = []
    for i in range(40):
        own = error + 0.1 * weather[i] + 0.01 * rng.normal()
        roots = {"rmse": own, "spread": 0.9 * own, "rmse_persistence": 2.0}
        plain = {"bias": 0.1, "mae": 0.5, "fair_crps": 0.4, **more}
        for metric, value in {**roots, **plain}.items():
            total = value**2 if metric.startswith(("rmse", "spread")) else value
            for lead in (24, 48):
                found.append(
                    {"cycle": FIRST.shift(24 * i), "model": model, "lead_hours": lead,
                     "variable": "temperature", "level": 850, "region": "global",
                     "metric": metric, "sum": total, "weight": 1.0, "value": value,
                     "truth_source": TRUTH}
                )  # fmt: skip
    return found


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the heat map is drawn of."""
    seen: dict[str, Any] = {}

    def scorecard(skill: np.ndarray, *given: Any, **named: Any) -> bytes:
        seen.update(skill=skill, significant=named["significant"])
        return b"picture"

    monkeypatch.setattr("mosaic_core.verification.figures.scorecard", scorecard)
    return seen


def test_a_month_is_compared_with_another_model_over_the_same_forecasts(
    site: Any, drawn: dict[str, Any]
) -> None:
    site.catalog.record_scores([*rows("tiny", 1.0, 1), *rows("other", 1.2, 2)])
    page = make_page(site, TRUTH, Valid.parse("2026-03"), "other")
    assert "Against other" in {section.heading for section in page.sections}
    np.testing.assert_allclose(drawn["skill"], 1 - 1.0 / 1.2, atol=0.02)
    assert drawn["significant"].all()
    with pytest.raises(ConfigurationError, match="no scores of nobody"):
        make_page(site, TRUTH, Valid.parse("2026-03"), "nobody")


def test_a_model_that_is_as_good_has_no_dot(site: Any, drawn: dict[str, Any]) -> None:
    site.catalog.record_scores([*rows("tiny", 1.0, 1), *rows("other", 1.0, 7)])
    make_page(site, TRUTH, Valid.parse("2026-03"), "other")
    assert np.abs(drawn["skill"]).max() < 0.01
    assert not drawn["significant"].any()


def test_climatology_is_the_reference_where_there_is_one(site: Any, drawn: dict[str, Any]) -> None:
    climate = {"rmse_climatology": 4.0, "anomaly_product": 3.0, "anomaly_square": 3.5}
    site.catalog.record_scores(rows("tiny", 1.0, 1, **climate))
    page = make_page(site, TRUTH, Valid.parse("2026-03"), flags=["Untrained"])
    headings = [section.heading for section in page.sections]
    assert headings == ["Scores", "By lead time", "Against climatology", "Drift"]
    np.testing.assert_allclose(drawn["skill"], 1 - 1.0 / 4.0, atol=0.02)
    assert page.sections[0].table is not None
    assert [row[:3] for row in page.sections[0].table.rows] == [("t850 (K)", "24 h", "30")]
    assert "**Untrained**" in page.markdown()


def test_the_page_of_a_day_is_written_beside_its_text(site: Any) -> None:
    site.catalog.record_scores(rows("tiny", 1.0, 1))
    urls = write_page(site, TRUTH, Valid.parse("2026-03-20"))
    html = site.store.get("verification/v1/tiny/analyses/pages/2026-03-20.html").decode()
    assert html.startswith("<!doctype html>")
    assert "from 2 cycles" in html
    assert urls["markdown"].endswith("2026-03-20.md")
    with pytest.raises(ConfigurationError, match="run `mosaic verify`"):
        make_page(site, TRUTH, Valid.parse("2026-01"))
