"""The functions that users call: widen, deepen, grow, inspect, apply, verify and bisect."""
