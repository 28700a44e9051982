"""The flow `watch` tells through a notification block that a real Prefect server keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.monitoring.receivers import Receiver
from tests.monitoring.world import World

_WORK = """
import json, sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret
from prefect.testing.utilities import prefect_test_harness
from flows import notifications
from flows.watch import watch
from mosaic_core.monitoring.channels import prefect_channel
from mosaic_core.monitoring.facts import Watched
from mosaic_core.monitoring.watch import try_channels
from mosaic_core.profile import Profile

profile, url, nowhere = sys.argv[1:]
with prefect_test_harness(server_startup_timeout=180):
    text = {"text": "{{subject}}: {{body}}"}
    for name, address in (("operators", url), ("dead", nowhere)):
        CustomWebhookNotificationBlock(name=name, url=address, json_data=text).save(name)
    Secret(value="x").save("mute")
    found = watch(profile)
    site = Watched.of(Profile.load(profile))
    told = {}
    for block in ("custom-webhook/dead", "custom-webhook/none", "secret/mute"):
        site.alerting.channels[block] = prefect_channel("prefect:" + block)
        (outcome,) = try_channels(site, [block], notifications.deliver)
        told[block] = outcome.problem
print(json.dumps([found, told]))
"""


@pytest.mark.slow
def test_flow_tells_through_a_block_and_says_what_a_block_cannot(
    world: World, pager: Receiver
) -> None:
    dead = Receiver()
    profile = world.folder / "profile.yaml"
    profile.write_text(
        json.dumps(
            {
                "name": "site", "model": "hres", "store": str(world.folder / "none"),
                "source": {"kind": "grib", "path": "/no/such/folder"}, "members": 2, "steps": 4,
                "catalog": world.catalog_url, "cycle": "2026-11-20T00Z",
            }
        )
    )  # fmt: skip
    environment = {
        **{name: value for name, value in os.environ.items() if "MOSAIC" not in name},
        "MOSAIC_ALERT_PREFECT_BLOCK": "custom-webhook/operators",
        "MOSAIC_HOME": str(world.folder / "home"),
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _WORK, str(profile), pager.url, dead.url],
        env=environment, capture_output=True, text=True, timeout=400, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found, told = json.loads(done.stdout.splitlines()[-1])
    (opened,) = found["opened"]
    assert opened.startswith("store-unreachable ")
    assert found["undelivered"] == []
    (message,) = pager.got
    assert message["text"].startswith(f"[critical] {opened}: the store cannot be read")
    assert told["custom-webhook/dead"].startswith("the block custom-webhook/dead failed: Connect")
    assert "there is no block custom-webhook/none" in told["custom-webhook/none"]
    assert told["secret/mute"] == "the block secret/mute cannot notify: it is a Secret"
    assert "topsecret" not in done.stdout + done.stderr
