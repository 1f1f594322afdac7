"""The command and the gate."""
