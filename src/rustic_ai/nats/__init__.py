"""Messages over NATS JetStream; needs `pip install 'rustic-multiprocess[nats]'`."""

from rustic_ai.nats.messaging import NatsMessagingBackend

__all__ = ["NatsMessagingBackend"]
