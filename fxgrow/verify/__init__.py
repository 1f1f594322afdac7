"""Verification: numbers beside the proof."""

from .bisect import bisect
from .certificate import Certificate, GradientCheck, OutputError, PairCheck
from .difference import FirstDifference
from .verify import verify

__all__ = [
    "Certificate",
    "FirstDifference",
    "GradientCheck",
    "OutputError",
    "PairCheck",
    "bisect",
    "verify",
]
