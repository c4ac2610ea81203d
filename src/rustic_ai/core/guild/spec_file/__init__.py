"""Guild files: YAML or JSON to specs and back, and the JSON Schema of both."""

from rustic_ai.core.guild.spec_file.reader import read_guild_file, read_guild_text
from rustic_ai.core.guild.spec_file.schema import guild_schema
from rustic_ai.core.guild.spec_file.writer import write_json, write_yaml

__all__ = ["guild_schema", "read_guild_file", "read_guild_text", "write_json", "write_yaml"]
