"""From a compressed network to an image: memory, proofs, tables, streams."""
