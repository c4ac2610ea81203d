"""Exit codes of the command.

====  =====================================================================
0     the guild said that it is done, or the file is valid
1     the guild failed: it said so, or an agent did not start, or died
2     bad usage, or the guild's description is wrong, or needs more processes
      than it may have
3     a module could not be imported
4     the message server cannot be reached, or its port is held by another
124   ``--timeout`` is over
130   interrupted (Ctrl-C)
143   told to end (SIGTERM)
====  =====================================================================
"""

from __future__ import annotations

from rustic_ai.core.errors import (
    BackendUnavailableError,
    DependencyError,
    ImportFailedError,
    MessagingConfigError,
    NotPicklableError,
    PortTakenError,
    ProcessLimitError,
    RequestTimeoutError,
    SpecError,
)

GUILD_FAILED = 1
BAD_INPUT = 2
IMPORT_FAILED = 3
NO_MESSAGING = 4
TIMED_OUT = 124
INTERRUPTED = 130
TERMINATED = 143


def exit_code_of(error: BaseException) -> int:
    """Return the exit code that an error stands for."""
    match error:
        case ImportFailedError():
            return IMPORT_FAILED
        case SpecError() | DependencyError() | NotPicklableError() | MessagingConfigError():
            return BAD_INPUT
        case ProcessLimitError():
            return BAD_INPUT
        case BackendUnavailableError() | PortTakenError():
            return NO_MESSAGING
        case RequestTimeoutError():
            return TIMED_OUT
        case _:
            return GUILD_FAILED
