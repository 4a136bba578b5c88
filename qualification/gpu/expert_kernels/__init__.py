"""Faster schedules for HUMMING's products of experts' weights than HUMMING chooses: compiled, measured, put in tables."""
