"""The static proof: states of new units, their propagation through a program, and the sums that vanish."""
