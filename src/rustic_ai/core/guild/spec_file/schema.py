"""The JSON Schema of guild files, for editors and checkers."""

from __future__ import annotations

from typing import Any

from rustic_ai.core.guild.spec import GuildSpec


def guild_schema() -> dict[str, Any]:
    """Return the JSON Schema that YAML and JSON guild files follow."""
    schema = GuildSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
