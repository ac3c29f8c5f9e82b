"""What an architecture *is*: designs, their bits and the spaces they come from. Plain Python, no torch."""
