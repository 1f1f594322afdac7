"""Capture: traces, recordings, inputs and what a trace leaves behind."""
