"""Messages through a Redis server: streams with consumer groups, for guilds on several machines.

    MessagingConfig(
        backend_module="rustic_ai.redis.messaging",
        backend_class="RedisMessagingBackend",
        backend_config={"host": "localhost", "port": 6379, "db": 0},
    )

Needs the extra: ``pip install 'rustic-multiprocess[redis]'``, and a server of version 7 or newer.
What was acknowledged outlives the server only where that writes it down: ``appendonly yes``, and
``appendfsync always`` for the last second, too.
"""

from rustic_ai.core._lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__, {"RedisMessagingBackend": "rustic_ai.redis.messaging"}
)

__all__ = ["RedisMessagingBackend"]
