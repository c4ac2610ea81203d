"""What is measured, each the same for every peer; runs in a peer's environment."""
