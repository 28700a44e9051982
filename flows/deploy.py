"""Register a site's pools, queues, deployments and automations on a Prefect server.

`infra/prefect.yaml` is the whole truth: what is there is made or changed, and deployments of the
same site and automations of ours that are no longer there are removed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import WorkPool
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import DeploymentSort
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from flows.command import main
from flows.plan import Deployed, Plan, Pool, plan_file, read_plan
from mosaic_core.errors import ConfigurationError
from mosaic_core.profile import Profile

OURS = "mosaic"


async def deploy(
    plan: Plan,
    profile: str,
    overrides: list[str],
    gpus: int | None = None,
    paused: bool = False,
    environment: dict[str, str] | None = None,
) -> list[str]:
    """Make the server's pools, deployments and automations those of the plan.

    Args:
        gpus: runs at once on pool `gpu`, instead of the plan's number.
        paused: whether schedules sleep; runs can be started by hand all the same.
        environment: variables of the flows' processes, over the plan's.

    Returns:
        a line for everything that was made, changed or removed.

    Raises:
        ConfigurationError: no server answers, or it has a pool of another type.
    """
    site = Profile.load(profile, overrides).name
    try:
        async with get_client() as client:
            done = [line for pool in plan.work_pools for line in await _pool(client, pool, gpus)]
            parameters = {"profile": profile, "overrides": overrides}
            wanted = [
                await _deployment(client, entry, site, parameters, not paused, environment or {})
                for entry in plan.deployments
            ]
            done += [f"deployment {name}" for name in wanted]
            done += await _remove_others(client, site, set(wanted))
            done += await _automations(client, plan)
            return done
    except httpx.TransportError as error:
        raise ConfigurationError(
            f"no Prefect server answers at {PREFECT_API_URL.value()} ({error!r})",
            "the address of a server that runs",
            "set PREFECT_API_URL, or try `mosaic up`",
        ) from error


async def _pool(client: PrefectClient, pool: Pool, gpus: int | None) -> list[str]:
    try:
        found: WorkPool | None = await client.read_work_pool(pool.name)
    except ObjectNotFound:
        found = None
    if found is None:
        template = ProcessWorker.get_default_base_job_template()
        await client.create_work_pool(
            WorkPoolCreate(
                name=pool.name, type=pool.type, description=pool.description,
                base_job_template=template,
            ),
            overwrite=False,
        )  # fmt: skip
    elif found.type != pool.type:
        raise ConfigurationError(
            f"the server has a pool {pool.name!r} of type {found.type!r}",
            f"type {pool.type!r}",
            "rename one of them in the file or remove it on the server",
        )
    else:
        await client.update_work_pool(pool.name, WorkPoolUpdate(description=pool.description))
    done = [f"pool {pool.name}"]
    for name, limit in pool.queues.items():
        limit = gpus if gpus is not None and pool.name == "gpu" else limit
        try:
            queue = await client.read_work_queue_by_name(name, work_pool_name=pool.name)
        except ObjectNotFound:
            queue = await client.create_work_queue(name, work_pool_name=pool.name)
        await client.update_work_queue(queue.id, concurrency_limit=limit)
        done.append(f"queue {pool.name}/{name}, {limit or 'any number of'} at once")
    return done


async def _deployment(
    client: PrefectClient,
    entry: Deployed,
    site: str,
    parameters: dict[str, Any],
    active: bool,
    environment: dict[str, str],
) -> str:
    """Make or change one; Prefect's own helper would copy the folder of this call to each run."""
    flow: Flow[Any, Any] = load_flow_from_entrypoint(entry.entrypoint)
    place = entry.work_pool
    variables = dict(place.job_variables)
    variables["env"] = {**variables.get("env", {}), **environment}
    await client.create_deployment(
        flow_id=await client.create_flow(flow),
        name=site,
        entrypoint=entry.entrypoint,
        path=None,
        pull_steps=[],
        description=entry.description,
        tags=[*entry.tags, f"site:{site}"],
        parameters={**entry.parameters, **parameters},
        parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        schedules=[
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=cron.cron, timezone=cron.timezone),
                active=active,
                slug=cron.slug,
            )
            for cron in entry.schedules
        ],
        work_pool_name=place.name,
        work_queue_name=place.work_queue_name,
        job_variables=variables,
        paused=False,
    )
    return f"{flow.name}/{site}"


async def _remove_others(client: PrefectClient, site: str, wanted: set[str]) -> list[str]:
    """Remove deployments of this site that the plan does not have."""
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[OURS, f"site:{site}"]))
    removed = []
    for found in await client.read_deployments(
        deployment_filter=ours, limit=200, sort=DeploymentSort.NAME_ASC
    ):
        name = f"{(await client.read_flow(found.flow_id)).name}/{found.name}"
        if name not in wanted:
            await client.delete_deployment(found.id)
            removed.append(f"removed deployment {name}")
    return removed


async def _automations(client: PrefectClient, plan: Plan) -> list[str]:
    """Make ours those of the plan; an unchanged one keeps what it is waiting for."""
    answer = await client.request("POST", "/automations/filter", json={"limit": 200})
    known = Automation.model_validate_list(answer.json())
    found = {a.name: a for a in known if a.name.startswith(f"{OURS}-")}
    done = []
    for content in plan.automations:
        wanted = AutomationCore.model_validate(content)
        before = found.pop(wanted.name, None)
        if before is None:
            await client.create_automation(wanted)
        elif _shape(before) != _shape(wanted):
            await client.update_automation(before.id, wanted)
        done.append(f"automation {wanted.name}")
    for name, left in found.items():
        await client.delete_automation(left.id)
        done.append(f"removed automation {name}")
    return done


def _shape(automation: Automation | AutomationCore) -> dict[str, Any]:
    shape = AutomationCore.model_validate(automation.model_dump(exclude={"id"}))
    return shape.model_dump(mode="json", exclude={"trigger": {"id"}})


def _work() -> None:
    parser = argparse.ArgumentParser(prog="mosaic deploy")
    parser.add_argument("--profile", default="production")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--file", type=Path, default=plan_file())
    parser.add_argument("--gpus", type=int)
    parser.add_argument("--paused", action="store_true")
    given = parser.parse_args()
    if not os.environ.get("PREFECT_API_URL") and not PREFECT_API_URL.value():
        raise ConfigurationError(
            "PREFECT_API_URL is not set", "the address of a Prefect server", "or try `mosaic up`"
        )
    plan = read_plan(given.file)
    lines = asyncio.run(deploy(plan, given.profile, given.overrides, given.gpus, given.paused))
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main(_work)
