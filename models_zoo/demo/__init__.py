"""The demo: small networks trained on real digits, grown and trained on, and its pictures."""
