"""The command line: ``main`` and one file a verb, imported only when that verb is named."""
