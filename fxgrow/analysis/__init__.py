"""The analysis of a model: its program, and what every axis in it is made of."""
