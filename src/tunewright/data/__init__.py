"""From a file to token ids: read, formats, check, split, template, ledger. Needs no torch and knows no model."""
