"""The `Program` data structure: the ATen operators of an fx graph over named values."""
