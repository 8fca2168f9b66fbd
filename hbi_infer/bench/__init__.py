"""Measures how fast a model is on each device, stage by stage."""
