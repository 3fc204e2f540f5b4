"""What a run did, as a picture and as one page. Reads a run folder, never a model; never called from training."""
