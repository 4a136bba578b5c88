"""Measure quality and compare it with published figures."""
