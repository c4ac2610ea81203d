"""What an agent's process loads and builds, for peers that are to carry the same weight."""

from __future__ import annotations

import importlib

AGENT_MODULE = "benchmarks.process.agents"
AGENT_NEEDS = (
    "rustic_ai.core.guild.execution.multiprocess.child",
    "rustic_ai.core.messaging.backend.in_memory_backend",
    AGENT_MODULE,
)
"""What a fresh interpreter imports to be an agent: no more, so that peers are not slowed down."""


def load() -> None:
    """Import what an agent needs."""
    for name in AGENT_NEEDS:
        importlib.import_module(name)


def load_like_nursery() -> None:
    """Import and warm up as the nursery does, for a process from which is forked."""
    from rustic_ai.core.guild.execution.multiprocess.nursery_process import FRAMEWORK
    from rustic_ai.core.guild.execution.multiprocess.warm_up import warm_up

    for name in (*FRAMEWORK, AGENT_MODULE):
        importlib.import_module(name)
    warm_up()


def build_agent() -> object:
    """Build and start an agent without a process of its own and without an engine."""
    from benchmarks.process.agents import EchoAgent
    from benchmarks.process.guilds import NO_MESSAGES
    from rustic_ai.core.guild.builders import AgentBuilder
    from rustic_ai.core.guild.execution.host import AgentHost, AgentLaunch
    from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
    from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface

    spec = AgentBuilder(EchoAgent).set_id("bare").set_name("bare").build_spec()
    messaging = MessagingInterface("bare", MessagingConfig.of(NO_MESSAGES))
    host = AgentHost(AgentLaunch("bare", "", spec, {}), messaging)
    host.start()
    return host
