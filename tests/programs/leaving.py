"""A program with two agents, one deaf and hanging, that ends the way it is told.

Prints the pids of its agents, then leaves: return | raise | exit | os._exit | wait.
"""

import os
import sys
import threading

from rustic_ai.core.guild import AgentBuilder, Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config
from rustic_ai.core.testing.agents import DyingAgent, MultiplyingAgent


def main(port: int, how: str) -> None:
    engine = MultiProcessExecutionEngine("leaving", max_processes=2, stop_timeout=0.5)
    guild = Guild("leaving", engine, create_embedded_messaging_config(port=port))
    for agent_class, name in ((MultiplyingAgent, "m"), (DyingAgent, "d")):
        guild.launch_agent(AgentBuilder(agent_class).set_id(name).set_name(name).build_spec())
    guild.publish({"how": "hang"})
    print(*(guild.get_process_info(name)["pid"] for name in "md"), flush=True)
    if how == "raise":
        raise RuntimeError("on purpose")
    if how == "exit":
        sys.exit(3)
    if how == "os._exit":
        os._exit(4)
    if how == "wait":
        threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
