"""Shows the errors that agents report, as they come."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rustic_ai.core.guild.agent.processor import format_of
from rustic_ai.core.guild.guild import Guild
from rustic_ai.core.guild.system_messages import ErrorMessage
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.core.message import Message


@contextmanager
def errors_shown(guild: Guild, tell: Callable[[str], None]) -> Iterator[None]:
    """Tell, on another thread, what comes to the error topic while the block lasts."""
    box = guild.collect(GuildTopics.ERROR_TOPIC)

    def show() -> None:
        for message in box:
            tell(describe(message))

    thread = threading.Thread(target=show, name="rustic-errors")
    try:
        with box:
            thread.start()
            yield
    finally:
        if thread.ident is not None:
            thread.join()


def describe(message: Message) -> str:
    """Return an error message as a line; an agent's traceback is in its own log."""
    if message.format == format_of(ErrorMessage):
        error = ErrorMessage.model_validate(message.payload)
        where = f" in {error.processor}" if error.processor else ""
        what = f"failed{where}: {error.error_type}: {error.message}"
    else:
        kind = message.format.rpartition(".")[2]
        what = f"reports {kind}: {json.dumps(message.describe_payload(), ensure_ascii=False)}"
    return f"error[agent-error]: agent {message.sender.name!r} {what}"
