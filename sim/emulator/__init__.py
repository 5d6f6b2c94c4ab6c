"""The virtual board: the top of a board, pins and all, as a program that a host talks to over its serial line."""
