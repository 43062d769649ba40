"""`paddle-internvl`: one file per subcommand, heavy imports inside `run`."""
