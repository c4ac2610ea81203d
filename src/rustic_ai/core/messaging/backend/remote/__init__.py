"""The client half of a backend whose store is a server of somebody else's."""

from rustic_ai.core.messaging.backend.remote.arrivals import Delivery, Place
from rustic_ai.core.messaging.backend.remote.backend import RemoteMessagingBackend
from rustic_ai.core.messaging.backend.remote.record import Output, dead_output_of

__all__ = ["Delivery", "Output", "Place", "RemoteMessagingBackend", "dead_output_of"]
