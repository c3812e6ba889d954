"""Prediction: a fine-tuned model's answer to every row of a table."""
