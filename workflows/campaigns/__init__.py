"""Campaigns: several fine-tunings by one command, side by side, and what they come to."""
