"""Agents in this process: for development, debugging and tests."""

from rustic_ai.core.guild.execution.sync.engine import SyncExecutionEngine

__all__ = ["SyncExecutionEngine"]
