"""Agents in operating-system processes of their own."""

from typing import TYPE_CHECKING

from rustic_ai.core._lazy import lazy_exports

if TYPE_CHECKING:
    from rustic_ai.core.guild.execution.multiprocess.engine import MultiProcessExecutionEngine
    from rustic_ai.core.guild.execution.multiprocess.tracker import MultiProcessAgentTracker
    from rustic_ai.core.guild.execution.multiprocess.wrapper import MultiProcessAgentWrapper

__all__ = ["MultiProcessAgentTracker", "MultiProcessAgentWrapper", "MultiProcessExecutionEngine"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "MultiProcessAgentTracker": "rustic_ai.core.guild.execution.multiprocess.tracker",
        "MultiProcessAgentWrapper": "rustic_ai.core.guild.execution.multiprocess.wrapper",
        "MultiProcessExecutionEngine": "rustic_ai.core.guild.execution.multiprocess.engine",
    },
)
