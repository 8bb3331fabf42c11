"""Geometry made visible."""
