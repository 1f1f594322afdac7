"""Measures whether two models compute the same function, and reports the result as a certificate."""

from .certificate import Certificate, GradientCheck, OutputError, PairCheck
from .first_difference import FirstDifference

__all__ = [
    "Certificate",
    "FirstDifference",
    "GradientCheck",
    "OutputError",
    "PairCheck",
]
