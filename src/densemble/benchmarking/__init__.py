"""What an ensemble costs on this machine, beside the naive way and beside what the machine can do at most."""
