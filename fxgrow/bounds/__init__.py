"""What is known of the numbers in a value: intervals, and which functions are idempotent."""
