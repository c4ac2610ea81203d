"""An agent that is to be run, and how: all that each of its actors needs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rustic_ai.core.guild.spec import AgentSpec
from rustic_ai.core.guild.supervision import ResourceLimits
from rustic_ai.core.settings import runtime_dir
from rustic_ai.ray.order import Order
from rustic_ai.ray.placement import actor_name


@dataclass(frozen=True)
class Wish:
    """What is to be run, and how."""

    guild_id: str
    agent_id: str
    agent_name: str
    actor_name: str
    order: Order
    placement: Mapping[str, Any]
    runtime_env: Mapping[str, Any] | None
    memory: int | None
    """Bytes above which it is killed."""


def wish_of(
    guild_id: str,
    spec: AgentSpec,
    pickled: tuple[bytes, bytes],
    limits: ResourceLimits,
    placement: Mapping[str, Any],
    runtime_env: Mapping[str, Any] | None,
) -> Wish:
    """Put it together, at the moment of launch.

    Args:
        guild_id: its guild.
        spec: the agent.
        pickled: its `AgentLaunch`, and how it joins the messages.
        limits: what its process may use.
        placement: what Ray is told of its needs.
        runtime_env: what Ray is told of its worker.
    """
    order = Order(
        *pickled,
        limits.model_dump(mode="json"),
        tuple(path for path in sys.path if isinstance(path, str)),
        str(runtime_dir()),
        logging.getLogger().getEffectiveLevel(),
    )
    name = actor_name(guild_id, spec.id)
    return Wish(guild_id, spec.id, spec.name, name, order, placement, runtime_env, limits.memory)
