"""Measure the speed of a running replica, or of a model without its weights."""
