"""Evaluation: what a model answers to the questions of a task, kept item by item, and what follows from it."""
