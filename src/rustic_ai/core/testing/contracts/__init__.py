"""What every backend and every engine promises, as test classes to inherit from."""
