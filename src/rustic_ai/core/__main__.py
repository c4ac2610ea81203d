"""``python -m rustic_ai.core``: the command."""

from rustic_ai.core.cli.app import main

if __name__ == "__main__":
    main()
