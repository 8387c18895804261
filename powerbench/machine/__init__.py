"""What a process may use of the machine that it is on, before torch is imported."""
