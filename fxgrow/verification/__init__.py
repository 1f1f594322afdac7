"""Verification: numbers beside the proof."""

from .certificate import Certificate, GradientCheck, OutputError, PairCheck
from .first_difference import FirstDifference

__all__ = [
    "Certificate",
    "FirstDifference",
    "GradientCheck",
    "OutputError",
    "PairCheck",
]
