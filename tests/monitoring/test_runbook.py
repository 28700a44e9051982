"""Who is woken up finds out what to do."""

from __future__ import annotations

import re

import yaml

from mosaic_core.monitoring.conditions import _CONDITIONS
from mosaic_core.monitoring.kinds import FORMS, Alerting
from mosaic_core.settings import config_folder
from tests.conftest import ROOT

RUNBOOK = ROOT / "docs" / "runbook.md"


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_kind_is_set_evaluated_and_explained() -> None:
    kinds = yaml.safe_load((config_folder() / "alerts.yaml").read_text())["kinds"]
    assert set(kinds) == set(FORMS) == set(_CONDITIONS) == set(sections())


def test_every_section_says_what_it_means_what_to_look_at_what_to_do_and_when_it_is_over() -> None:
    for kind, text in sections().items():
        told = re.findall(r"^\*\*(Means|Look at|Do|Over)\b", text, flags=re.MULTILINE)
        assert told == ["Means", "Look at", "Do", "Over"], kind


def commands() -> list[str]:
    found = re.findall(r"`(mosaic(?: [a-z]+)+)", RUNBOOK.read_text())
    return sorted({*found, *re.findall(r"^(mosaic [a-z ]+?)  ", RUNBOOK.read_text(), re.MULTILINE)})


def test_every_command_and_option_of_it_is_there() -> None:
    from typer.main import get_command

    from mosaic_core.cli import app

    top = get_command(app)
    assert len(commands()) >= 10
    for command in commands():
        found = top
        for word in command.split()[1:]:
            inner = getattr(found, "commands", None)
            if inner is None:
                break
            assert word in inner, command
            found = inner[word]
    for command, option in re.findall(r"`mosaic ([a-z ]+?) (--[a-z-]+)", RUNBOOK.read_text()):
        found = top
        for word in command.split():
            found = found.commands[word]  # type: ignore[attr-defined]
        assert option in {name for p in found.params for name in p.opts}, f"{command} {option}"


def test_shipped_texts_name_only_fields_that_their_kind_has() -> None:
    alerting = Alerting.load()
    assert set(alerting.kinds) == set(FORMS)


def test_prometheus_rules_point_to_sections_that_are_there() -> None:
    rules = yaml.safe_load((ROOT / "infra/monitoring/rules/mosaic.yml").read_text())
    anchors = [
        rule["annotations"]["runbook"].partition("#")[2]
        for group in rules["groups"]
        for rule in group["rules"]
    ]
    assert anchors
    assert set(anchors) <= set(sections())
