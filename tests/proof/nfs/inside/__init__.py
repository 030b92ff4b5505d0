"""What runs as root inside the virtual machine, with its own Python and nothing of the project but what is served there."""
