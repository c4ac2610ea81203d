"""The dependencies of one agent: made on first use, kept, closed in reverse order."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from rustic_ai.core.class_names import load_class
from rustic_ai.core.errors import MissingDependencyError
from rustic_ai.core.guild.di.resolver import DependencyResolver
from rustic_ai.core.guild.spec import DependencySpec

logger = logging.getLogger(__name__)


class DependencyContainer:
    """Resolves keys for one agent; its own definitions go before the guild's.

    Missing keys and circles are refused before launch (`graph`), so here they only surface for
    keys that are asked for by hand.
    """

    def __init__(
        self,
        guild_map: Mapping[str, DependencySpec],
        agent_map: Mapping[str, DependencySpec],
        *,
        organization_id: str,
        guild_id: str,
        agent_id: str,
    ) -> None:
        self._specs = {**guild_map, **agent_map}
        self._where = (organization_id, guild_id, agent_id)
        self._values: dict[str, Any] = {}
        self._made: list[tuple[str, DependencyResolver]] = []

    def get(self, key: str, wanted_by: str) -> Any:
        """Return the object of `key`, made on first use.

        Raises:
            MissingDependencyError: there is no such key.
            Exception: whatever the resolver raises.
        """
        if key not in self._values:
            spec = self._specs.get(key)
            if spec is None:
                raise MissingDependencyError(
                    key=key, wanted_by=wanted_by, available=sorted(self._specs)
                )
            self._values[key] = spec.value if spec.class_name is None else self._make(key, spec)
        return self._values[key]

    def _make(self, key: str, spec: DependencySpec) -> Any:
        assert spec.class_name is not None
        resolver = load_class(spec.class_name, DependencyResolver)(**spec.properties)
        resolver.dependencies = {
            needed: self.get(needed, wanted_by=f"dependency {key!r}")
            for needed in resolver.depends_on
        }
        value = resolver.resolve(*self._where)
        self._made.append((key, resolver))
        return value

    def close(self) -> None:
        """Close what resolvers made, the last made first; a failure is logged, the rest go on."""
        while self._made:
            key, resolver = self._made.pop()
            try:
                resolver.close(self._values.pop(key))
            except Exception:
                logger.exception("closing dependency %r failed", key)
