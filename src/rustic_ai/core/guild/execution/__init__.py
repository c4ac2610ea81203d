"""Where agents run."""

from typing import TYPE_CHECKING

from rustic_ai.core._lazy import lazy_exports

if TYPE_CHECKING:
    from rustic_ai.core.guild.execution.engine import ExecutionEngine
    from rustic_ai.core.guild.execution.multiprocess.engine import MultiProcessExecutionEngine
    from rustic_ai.core.guild.execution.sync.engine import SyncExecutionEngine

__all__ = ["ExecutionEngine", "MultiProcessExecutionEngine", "SyncExecutionEngine"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ExecutionEngine": "rustic_ai.core.guild.execution.engine",
        "MultiProcessExecutionEngine": "rustic_ai.core.guild.execution.multiprocess.engine",
        "SyncExecutionEngine": "rustic_ai.core.guild.execution.sync.engine",
    },
)
