"""Messages, their ids, and the contract of what carries them."""
