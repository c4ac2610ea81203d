"""Runs an agent on a Ray cluster of its own, which may be lost: works|gone PORT."""

from __future__ import annotations

import os
import signal
import sys
import time

import psutil

from rustic_ai.core.errors import GuildError
from rustic_ai.core.guild import Guild
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config
from rustic_ai.core.testing import agents
from rustic_ai.core.testing.waiting import wait_until
from rustic_ai.ray import RayExecutionEngine
from tests.support import is_running, spec_of

outcome, port = sys.argv[1:]
options = {"num_cpus": 2, "object_store_memory": 80 << 20, "log_to_driver": False}
engine = RayExecutionEngine("own", address="local", ray_options=options)
config = create_embedded_messaging_config(port=int(port), transport="tcp")
guild = Guild("own", engine, config)
handler = signal.getsignal(signal.SIGTERM)
guild.launch_agent(spec_of(agents.MultiplyingAgent, "m"))
assert signal.getsignal(signal.SIGTERM) is handler
print(f"answer={guild.request(agents.Number(value=7), timeout=30).payload['value']}")
processes = psutil.Process().children(recursive=True)
if outcome == "gone":
    os.kill(next(p.pid for p in processes if "gcs_server" in p.name()), signal.SIGKILL)
    began = time.monotonic()
    try:
        guild.launch_agent(spec_of(agents.MultiplyingAgent, "n"))
    except GuildError as e:
        print(f"error={type(e).__name__}")
        print(f"refused_after={time.monotonic() - began}")
began = time.monotonic()
guild.shutdown()
print(f"shut_after={time.monotonic() - began}")
wait_until(lambda: not any(is_running(p.pid) for p in processes), 30)
print("left=[]")
