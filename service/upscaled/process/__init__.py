"""Start, talk with and supervise child processes: the kit of every pool of processes."""
