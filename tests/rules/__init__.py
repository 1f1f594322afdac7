"""The rules of operators, and the axes they speak of."""
