"""What cannot work on a cluster, found before anything is started."""

from __future__ import annotations

from rustic_ai.core.errors import MessagingConfigError, SpecError
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig


def refuse_local_messages(config: MessagingConfig) -> None:
    """Refuse messages that stay in the program.

    Raises:
        MessagingConfigError: agents in other processes would never see them; or the configuration
            is wrong.
    """
    if not config.backend_type().capabilities.processes:
        raise MessagingConfigError(
            summary=f"{config.backend_class} keeps messages in the program, where agents on a Ray "
            "cluster cannot reach them",
            hint="use the embedded server (on one machine), Redis or NATS",
        )


def refuse_local_classes(agent_name: str, class_name: str, launch: bytes) -> None:
    """Refuse what needs the program's ``__main__``, which a node of a cluster does not have.

    Args:
        agent_name: for the error.
        class_name: of the agent.
        launch: the agent, pickled.

    Raises:
        SpecError: the agent's class, or a value that it is given, is defined there.
    """
    if class_name.startswith("__main__") or b"__main__" in launch:
        raise SpecError(
            summary=f"agent {agent_name!r} needs a class of the program's __main__ "
            f"({class_name}), which no node of a Ray cluster can import",
            hint="put the class into a module that the nodes can import; runtime_env brings files",
        )
