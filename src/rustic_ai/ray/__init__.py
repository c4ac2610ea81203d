"""Agents as actors of a Ray cluster; needs ``pip install 'rustic-multiprocess[ray]'``."""

from typing import TYPE_CHECKING

from rustic_ai.core._lazy import lazy_exports

if TYPE_CHECKING:
    from rustic_ai.ray.engine import RayExecutionEngine
    from rustic_ai.ray.errors import RayUnavailableError

__all__ = ["RayExecutionEngine", "RayUnavailableError"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "RayExecutionEngine": "rustic_ai.ray.engine",
        "RayUnavailableError": "rustic_ai.ray.errors",
    },
)
