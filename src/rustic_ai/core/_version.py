"""The version of the distribution, and how it was built."""

import importlib.util

__version__ = "0.1.0"


def how_built() -> str:
    """Return 'compiled' where the way of a message is machine code, else 'not compiled'."""
    found = importlib.util.find_spec("rustic_ai.core.messaging.core.templates")
    is_source = found is None or str(found.origin).endswith(".py")
    return "not compiled" if is_source else "compiled"
