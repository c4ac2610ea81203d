"""What an agent or a program holds to talk."""
