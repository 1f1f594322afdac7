"""Example inputs of a model: given, remembered or inferred, and inputs of other sizes."""
