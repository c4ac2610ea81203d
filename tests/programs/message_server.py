"""A message server, as an auto-started one: ends when its input and its last client are gone."""

import json
import sys

from rustic_ai.core.messaging.backend.embedded_backend.server_process import main

if __name__ == "__main__":
    main("localhost", int(sys.argv[1]), json.loads(sys.argv[2]))
