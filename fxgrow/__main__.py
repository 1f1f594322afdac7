"""`python -m fxgrow` is the command `fxgrow`."""

from .cli.app import main

main()
