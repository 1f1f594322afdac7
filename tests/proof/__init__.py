"""States of new units, schemes, and what the static proof says."""
