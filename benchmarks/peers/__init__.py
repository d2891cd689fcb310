"""Other ways to the same mask, each opened in a process of its own and timed in turns with ours."""
