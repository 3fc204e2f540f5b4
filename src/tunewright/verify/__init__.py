"""Proofs about a finished run, each on its own rows and through what everybody uses: one file a proof."""
