"""What engines have in common that look after agents in other processes."""
