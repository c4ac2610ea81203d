"""How fast, small and cheap agents' processes are, beside what else there is, in one run."""
