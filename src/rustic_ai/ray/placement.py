"""From an agent's spec to what Ray is told of its actor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from rustic_ai.core.guild.spec import ResourceSpec
from rustic_ai.ray.actor import CONCURRENCY_GROUPS, AgentActor
from rustic_ai.ray.installed import NAMESPACE, import_ray

_RAY_NAMES = {"num_cpus": "CPU", "num_gpus": "GPU"}


def actor_name(guild_id: str, agent_id: str) -> str:
    """Return the name of an agent's actor, in `NAMESPACE`."""
    return f"{quote(guild_id, safe='')}/{quote(agent_id, safe='')}"


def placement_of(wanted: ResourceSpec, usual: ResourceSpec) -> dict[str, Any]:
    """Return Ray's words for what an agent needs; what neither says is left to Ray.

    Args:
        wanted: of the agent.
        usual: of the engine; each field counts where the agent has none.
    """
    cpus = wanted.num_cpus if wanted.num_cpus is not None else usual.num_cpus
    gpus = wanted.num_gpus if wanted.num_gpus is not None else usual.num_gpus
    custom = {**usual.custom, **wanted.custom}
    given = {"num_cpus": cpus, "num_gpus": gpus, "resources": custom or None}
    return {name: value for name, value in given.items() if value is not None}


def create_actor(
    name: str, placement: Mapping[str, Any], runtime_env: Mapping[str, Any] | None
) -> Any:
    """Have an actor made, and return its handle; where and when it is placed shows later.

    Ray itself starts nothing again: an engine knows what its policy wants.

    Raises:
        ValueError: the name is taken, or the runtime environment is wrong.
    """
    actor_class = import_ray().remote(concurrency_groups=CONCURRENCY_GROUPS)(AgentActor)
    options = dict(placement)
    if runtime_env:
        options["runtime_env"] = dict(runtime_env)
    return actor_class.options(
        name=name, namespace=NAMESPACE, max_restarts=0, max_task_retries=0, **options
    ).remote()


def missing(placement: Mapping[str, Any]) -> str:
    """Say what an agent needs and the cluster has; for one that waits for a place."""
    wanted = {**placement.get("resources", {})}
    wanted |= {n: placement[k] for k, n in _RAY_NAMES.items() if k in placement}
    ray = import_ray()
    total, free = ray.cluster_resources(), ray.available_resources()
    asked = ", ".join(
        f"{amount:g} {name} ({free.get(name, 0):g} of {total.get(name, 0):g} free)"
        for name, amount in wanted.items()
    )
    return f"it needs {asked or 'no more than any actor'} on one node of the cluster"
