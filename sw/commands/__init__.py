"""One module a subcommand; each defines ``command``, a click command. ``cli`` loads them lazily."""
