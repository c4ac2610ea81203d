"""Every error that this package raises on purpose.

GuildError
├── SpecError (ValueError)               a description is wrong
│   ├── SpecFileError                    all problems of one file, with lines and columns
│   ├── ClassNotFoundError               a class name leads nowhere, or to the wrong thing
│   └── ImportFailedError (ImportError)  a module of the user cannot be imported
├── DependencyError (ValueError)         the dependencies of an agent cannot be provided
│   ├── MissingDependencyError
│   └── DependencyCycleError
├── NotPicklableError (TypeError)        a value cannot travel to another process
├── EngineError (RuntimeError)           an engine cannot do what it was asked
│   ├── ProcessLimitError
│   ├── DuplicateAgentError
│   ├── EngineClosedError
│   └── AgentStartError
├── AgentError (RuntimeError)            an agent answered with an error
├── GuildFailedError (RuntimeError)      agents ended before the guild's work was done
├── RequestTimeoutError (TimeoutError)   nobody answered in time
└── MessagingError (RuntimeError)
    ├── MessagingConfigError (ValueError)
    ├── BackendClosedError
    ├── BackendUnavailableError (ConnectionError)
    ├── PortTakenError (OSError)
    ├── JournalError                     the journal on disk cannot be read or written
    ├── AccessError                      a file of the server is not its user's alone
    ├── BackPressureError                subscribers do not keep up
    ├── PayloadError (ValueError)        a payload is not what its format says
    │   ├── PayloadGoneError             a large part of it is not to be had any more
    │   └── PickleRefusedError           it is pickled, which is not wanted here
    ├── ProtocolError                    the other side broke the wire protocol
    └── MessageTooLargeError (ValueError)

Errors carry their facts as fields, a stable ``code``, and a ``hint`` where there is something to
do. They survive pickling, since most of them cross a process border.
"""

from rustic_ai.core.errors.guild import (
    AgentError,
    AgentStartError,
    ClassNotFoundError,
    DependencyCycleError,
    DependencyError,
    DuplicateAgentError,
    EngineClosedError,
    EngineError,
    GuildError,
    GuildFailedError,
    ImportFailedError,
    MissingDependencyError,
    NotPicklableError,
    Problem,
    ProcessLimitError,
    RequestTimeoutError,
    SpecError,
    SpecFileError,
)
from rustic_ai.core.errors.messaging import (
    AccessError,
    BackendClosedError,
    BackendUnavailableError,
    BackPressureError,
    JournalError,
    MessageTooLargeError,
    MessagingConfigError,
    MessagingError,
    PayloadError,
    PayloadGoneError,
    PickleRefusedError,
    PortTakenError,
    ProtocolError,
)

__all__ = [
    "AccessError",
    "AgentError",
    "AgentStartError",
    "BackPressureError",
    "BackendClosedError",
    "BackendUnavailableError",
    "ClassNotFoundError",
    "DependencyCycleError",
    "DependencyError",
    "DuplicateAgentError",
    "EngineClosedError",
    "EngineError",
    "GuildError",
    "GuildFailedError",
    "ImportFailedError",
    "JournalError",
    "MessageTooLargeError",
    "MessagingConfigError",
    "MessagingError",
    "MissingDependencyError",
    "NotPicklableError",
    "PayloadError",
    "PayloadGoneError",
    "PickleRefusedError",
    "PortTakenError",
    "Problem",
    "ProcessLimitError",
    "ProtocolError",
    "RequestTimeoutError",
    "SpecError",
    "SpecFileError",
]
