"""How good is a model, and is it better than it was: numbers, checks, the comparison and its verdict."""
