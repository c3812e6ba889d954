"""What a trained model is used for: fill blanks, score answers and texts."""
