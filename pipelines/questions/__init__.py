"""From a row of a file to what a model is asked: items, patterns, tasks, questions."""
