"""Verification: numbers beside the proof."""

from .certificate import Certificate, GradientCheck, OutputError, PairCheck
from .verify import verify

__all__ = ["Certificate", "GradientCheck", "OutputError", "PairCheck", "verify"]
