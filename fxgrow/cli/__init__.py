"""The command `fxgrow`. Only the command imports this package."""
