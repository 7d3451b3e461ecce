"""Gradient-Blending: the method, its networks and their training."""
