"""The commands of `cellseg`, one a module: its options, and run()."""
