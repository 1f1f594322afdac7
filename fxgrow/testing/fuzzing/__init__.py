"""Draws models and growths at random, as data, checks the laws on them, and makes breaches smaller."""
