"""The smallest agent: it lives in a process of its own, and answers a greeting."""

import os

from pydantic import BaseModel

from rustic_ai.core.guild import Agent, AgentBuilder, Guild, ProcessContext, agent


class Greeting(BaseModel):
    """Who says hello, or what is said."""

    text: str


class Greeter(Agent):
    """Greets back."""

    @agent.processor(Greeting)
    def greet(self, ctx: ProcessContext[Greeting]) -> None:
        ctx.send(Greeting(text=f"Hello {ctx.payload.text}, I am process {os.getpid()}."))


if __name__ == "__main__":
    with Guild("hello") as guild:
        guild.launch_agent(AgentBuilder(Greeter).set_name("greeter").build_spec())
        print(f"This is process {os.getpid()}.")
        print(guild.request(Greeting(text="world")).payload["text"])
