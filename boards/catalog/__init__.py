"""The tuned boards: each module has ``BOARDS``."""
