"""Reports which layers of a model can grow, and why the others cannot."""
