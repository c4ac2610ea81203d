"""What makes a dependency in the agent's own process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar


class DependencyResolver(ABC):
    """Makes one object for one agent, on first use, where the agent runs.

    Constructed with the `properties` of its `DependencySpec`.

    Attributes:
        depends_on: keys of dependencies that `resolve` needs.
        dependencies: those, resolved, by key; set before `resolve` is called.
    """

    depends_on: ClassVar[tuple[str, ...]] = ()
    dependencies: Mapping[str, Any]

    @abstractmethod
    def resolve(self, org_id: str, guild_id: str, agent_id: str) -> Any:
        """Make the object. Called once per agent; the result is kept until the agent ends."""

    def close(self, value: Any) -> None:
        """Give back what `resolve` made; called when the agent ends, not when it crashes.

        By default calls ``value.close()`` where there is such a method.
        """
        close = getattr(value, "close", None)
        if callable(close):
            close()
