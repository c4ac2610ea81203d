"""What users write: agents and their message handlers."""

from rustic_ai.core.guild.agent.agent import Agent
from rustic_ai.core.guild.agent.context import ProcessContext
from rustic_ai.core.guild.agent.processor import processor
from rustic_ai.core.messaging.core.message import JsonDict

__all__ = ["Agent", "JsonDict", "ProcessContext", "processor"]
