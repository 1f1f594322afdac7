"""Certificates, probes and the first node that differs."""
