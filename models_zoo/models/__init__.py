"""Small models, each with example inputs and a reason to exist."""
