"""Faster schedules for Humming's products of experts' weights than Humming chooses: compiled, measured, put in tables."""
