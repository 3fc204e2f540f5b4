"""A recipe: the whole of one run as one YAML file, and the typed object that the file becomes."""
