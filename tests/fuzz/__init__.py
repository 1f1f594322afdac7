"""The fuzzer and its strategies."""
