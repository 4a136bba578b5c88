"""How much GPU memory a plan takes, and what to change when it does not fit. Arithmetic only."""
