"""What preparations leave behind: which stores there are, who needs them, and which may go."""
