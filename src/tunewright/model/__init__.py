"""Bases: where they come from, what they cost, how they are loaded, what of them is trained.

`source`, `memory` and `catalog` import neither torch nor transformers; `load`, `adapter` and `convert` do.
"""
