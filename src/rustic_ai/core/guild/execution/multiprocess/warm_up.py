"""Done once in the nursery for all agents to come: what each would do slowly for its first time.

Decoders are built, validators too, and modules loaded that are imported on first use; all of it on
pages that the agents then share.
"""

from __future__ import annotations

import pickle
import resource  # noqa: F401 - `limits` needs it
import tempfile

import msgspec

from rustic_ai.core.class_names import qualified_name
from rustic_ai.core.guild.agent.agent import Agent
from rustic_ai.core.guild.agent.context import ProcessContext
from rustic_ai.core.guild.agent.processor import processor
from rustic_ai.core.guild.execution.host import AgentHost, AgentLaunch
from rustic_ai.core.guild.execution.multiprocess.boot import BootHeader
from rustic_ai.core.guild.execution.multiprocess.channel import Stop, decode, encode
from rustic_ai.core.guild.spec import AgentSpec, BaseAgentProps
from rustic_ai.core.guild.supervision import NO_LIMITS, ResourceLimits
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config
from rustic_ai.core.messaging.core.message import JsonDict
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface
from rustic_ai.core.messaging.core.stop_signal import StopSignal


class _Apprentice(Agent[BaseAgentProps]):
    """Lives in the nursery for a moment."""

    @processor(JsonDict)
    def ignore(self, ctx: ProcessContext[JsonDict]) -> None:
        """Do nothing."""


def warm_up() -> None:
    """Go once through the start of an agent, without a process and without messages."""
    header = BootHeader("warm-up", None, 30, 0.5, None, NO_LIMITS.model_dump(mode="json"))
    msgspec.json.decode(msgspec.json.encode(header), type=BootHeader)
    ResourceLimits.model_validate(header.limits)
    decode(encode(Stop()))
    StopSignal().close()
    tempfile.gettempdir()  # tries it out by writing a file
    MessagingConfig.of(create_embedded_messaging_config()).backend_type()
    spec = AgentSpec(name="warm-up", class_name=qualified_name(_Apprentice))
    launch = AgentLaunch("warm-up", "", spec, {})
    config = MessagingConfig(
        backend_module="rustic_ai.core.messaging.backend.in_memory_backend",
        backend_class="InMemoryMessagingBackend",
    )
    launch, config = pickle.loads(pickle.dumps((launch, config)))
    messaging = MessagingInterface("warm-up", config)
    host = AgentHost(launch, messaging)
    host.start()
    host.stop()
    messaging.close()
