"""Turning token ids into more token ids."""
