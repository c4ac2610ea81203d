"""Which backend carries a guild's messages, as data that can travel to its agents."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from rustic_ai.core.errors import MessagingConfigError
from rustic_ai.core.messaging.core.messaging_backend import MessagingBackend
from rustic_ai.core.messaging.core.messaging_urls import config_of_url


class MessagingConfig(BaseModel):
    """Names a backend class and its keyword arguments; an address is one, too: `config_of_url`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend_module: str = Field(min_length=1, description="Module that defines the backend.")
    backend_class: str = Field(min_length=1, description="Name of the backend class in it.")
    backend_config: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments of the backend class."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, value: Any) -> Any:
        return config_of_url(value) if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        fields = handler.resolve_ref_schema(handler(core_schema))
        url = {"type": "string", "format": "uri", "examples": ["redis://localhost:6379/0"]}
        return {"anyOf": [url, fields], "title": fields.get("title", cls.__name__)}

    @classmethod
    def of(cls, config: MessagingConfig | Mapping[str, Any] | str) -> MessagingConfig:
        """Take a configuration, a mapping of its fields, or an address.

        Raises:
            MessagingConfigError: the mapping is not a configuration.
        """
        if isinstance(config, cls):
            return config
        if isinstance(config, str):
            config = config_of_url(config)
        if not isinstance(config, Mapping):
            raise MessagingConfigError(
                summary=f"messaging_config is a MessagingConfig, a dict of its fields, or an "
                f"address like 'redis://localhost:6379/0', not a {type(config).__name__}"
            )
        try:
            return cls.model_validate(dict(config))
        except ValidationError as e:
            raise MessagingConfigError(summary=f"messaging_config is wrong: {e}") from e

    def backend_type(self) -> type[MessagingBackend]:
        """Import the backend class and check the names of its arguments.

        Raises:
            MessagingConfigError: no such module or class, or a key it does not know.
        """
        where = f"{self.backend_module}.{self.backend_class}"
        try:
            module = importlib.import_module(self.backend_module)
        except ModuleNotFoundError as e:
            raise MessagingConfigError(
                summary=f"messaging backend {where}: cannot import {self.backend_module!r}: {e}"
            ) from e
        found = getattr(module, self.backend_class, None)
        if not (isinstance(found, type) and issubclass(found, MessagingBackend)):
            near = difflib.get_close_matches(self.backend_class, dir(module), n=1)
            raise MessagingConfigError(
                summary=f"messaging backend {where}: "
                f"{self.backend_module!r} has no MessagingBackend of that name",
                hint=f"did you mean {near[0]!r}?" if near else "",
            )
        self._check_keys(found)
        return found

    def _check_keys(self, backend: type[MessagingBackend]) -> None:
        known = _settings_of(backend)
        for key in self.backend_config:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                raise MessagingConfigError(
                    summary=f"backend_config has no setting {key!r} for {self.backend_class} "
                    f"(it knows: {', '.join(known) or 'none'})",
                    hint=f"did you mean {near[0]!r}?" if near else "",
                )

    def create_backend(self) -> MessagingBackend:
        """Make the backend: connect to its store.

        Raises:
            MessagingConfigError: the configuration is wrong.
            BackendUnavailableError: the store cannot be reached.
        """
        return self.backend_type()(**self.backend_config)


@functools.cache
def _settings_of(backend: type[MessagingBackend]) -> tuple[str, ...]:
    return tuple(inspect.signature(backend).parameters)
