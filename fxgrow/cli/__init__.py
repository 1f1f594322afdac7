"""The command-line interface `fxgrow`. No other package imports it."""
