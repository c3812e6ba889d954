"""What a model answers to questions, whoever asks: an evaluation, a prediction, or a training."""
