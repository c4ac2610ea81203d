"""A script whose agents, models and dependencies are its own; prints the answer."""

import sys

from pydantic import BaseModel

from rustic_ai.core.guild import Agent, AgentBuilder, Guild, ProcessContext
from rustic_ai.core.guild.agent import processor
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config


class Offset:
    def __init__(self, by: int) -> None:
        self.by = by


class Question(BaseModel):
    value: int


class Reply(BaseModel):
    value: int


class ScriptAgent(Agent):
    @processor(Question, depends_on=["offset"])
    def answer(self, ctx: ProcessContext[Question], offset: Offset) -> None:
        ctx.send(Reply(value=ctx.payload.value + offset.by))


def main(port: int) -> None:
    builder = AgentBuilder().set_name("script").set_class_name("ScriptAgent")
    with Guild("script", messaging_config=create_embedded_messaging_config(port=port)) as guild:
        guild.launch_agent(builder.add_dependency("offset", Offset(5)).build_spec())
        print(guild.request(Question(value=2)).payload["value"])


if __name__ == "__main__":
    main(int(sys.argv[1]))
