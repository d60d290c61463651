"""What an ensemble costs on this machine, beside a naive loop and beside what the machine can do at most."""
