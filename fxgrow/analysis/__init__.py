"""The analysis of a model: its program of ATen operators, and an expression for every axis of every value in it."""
