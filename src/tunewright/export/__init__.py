"""A finished run in the forms that other software reads, each compared with base + adapter before it is called done."""
