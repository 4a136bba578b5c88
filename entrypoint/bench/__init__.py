"""The speed of a running replica, and of a model whose weights are not here."""
