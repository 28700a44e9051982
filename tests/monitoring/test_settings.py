"""A wrong line in config/alerts.yaml is named, with the nearest right one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from mosaic_core.errors import ConfigurationError
from mosaic_core.monitoring.kinds import Alerting, Deadline
from mosaic_core.settings import config_folder


def load(tmp_path: Path, change: Any) -> Alerting:
    content = yaml.safe_load((config_folder() / "alerts.yaml").read_text())
    change(content)
    path = tmp_path / "alerts.yaml"
    path.write_text(yaml.safe_dump(content))
    return Alerting.load(str(path))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda c: c.update(kind={}), "did you mean 'kinds'?"),
        (lambda c: c["kinds"].update({"analysis-lat": {}}), "did you mean 'analysis-late'?"),
        (lambda c: c["kinds"]["analysis-late"].update(hour=8), "did you mean 'hours'?"),
        (lambda c: c["kinds"]["degraded"].update(hours=8), "unknown key 'hours'"),
        (lambda c: c["kinds"]["degraded"].update(severity="warn"), "did you mean 'warning'?"),
        (lambda c: c["kinds"]["degraded"].update(text="{cycel}"), "did you mean 'cycle'?"),
        (lambda c: c["kinds"]["degraded"].update(text="{cycle"), "a template"),
        (lambda c: c["kinds"]["degraded"].update(channels=["slak"]), "did you mean 'slack'?"),
        (lambda c: c["defaults"].update(channels=["mial"]), "did you mean 'mail'?"),
        (lambda c: c["channels"]["slack"].update(kind="slak"), "did you mean 'slack'?"),
        (lambda c: c["channels"]["slack"].update(urll="x"), "did you mean 'url'?"),
        (lambda c: c["channels"]["slack"].pop("kind"), "`kind:`"),
        (lambda c: c["channels"].update(slack="https://x"), "no kind"),
        (lambda c: c["kinds"]["disk-nearly-full"].pop("free_percent"), "free_percent"),
    ],
)
def test_wrong_setting_is_refused(tmp_path: Path, change: Any, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=r"alerts\.yaml") as caught:
        load(tmp_path, change)
    assert hint in str(caught.value)


def test_kind_that_is_left_out_is_not_watched(tmp_path: Path) -> None:
    alerting = load(tmp_path, lambda c: c["kinds"].pop("degraded"))
    assert "degraded" not in alerting.kinds


def test_analysis_is_missing_at_the_cut_off_of_the_profile() -> None:
    kind = Alerting.load().kinds["analysis-missing"]
    assert isinstance(kind, Deadline)
    assert kind.hours is None


def test_channel_is_off_until_the_environment_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MOSAIC_ALERT_SLACK", raising=False)
    assert "MOSAIC_ALERT_SLACK" in Alerting.load().channels["slack"].off
    monkeypatch.setenv("MOSAIC_ALERT_SLACK", "https://hooks.example/topsecret")
    alerting = Alerting.load()
    assert alerting.channels["slack"].off == ""
    assert "slack" in alerting.channels_of("degraded")
    assert "topsecret" not in repr(alerting)


def test_prefect_block_may_be_named_where_a_channel_is(tmp_path: Path) -> None:
    block = "prefect:slack-webhook/operators"
    alerting = load(tmp_path, lambda c: c["kinds"]["degraded"].update(channels=[block]))
    assert alerting.channels_of("degraded") == (block,)


def test_repetition_of_a_kind_goes_before_the_default(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        content["defaults"]["repeat_hours"] = 6
        content["kinds"]["degraded"]["repeat_hours"] = 1
        content["kinds"]["analysis-late"]["repeat_hours"] = 0
        content["kinds"]["worker-dead"].pop("repeat_hours", None)

    alerting = load(tmp_path, change)
    assert alerting.repeat_after("degraded") == timedelta(hours=1)
    assert alerting.repeat_after("analysis-late") is None
    assert alerting.repeat_after("worker-dead") == timedelta(hours=6)
