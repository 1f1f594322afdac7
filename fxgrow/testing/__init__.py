"""Tools for tests of fxgrow and of rules: laws, Hypothesis strategies, a fuzzer, and snapshots of models."""
