"""The weight codec: canonical Huffman codes over dictionary entries."""
