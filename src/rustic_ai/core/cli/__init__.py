"""The command `rustic-ai`, one file per verb. Never imported by an agent's process."""
