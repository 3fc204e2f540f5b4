"""Training: which rows make a step, the loss of a step, and the whole story of a run."""
