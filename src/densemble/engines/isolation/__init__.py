"""Run a function in a separate process: a server that has imported everything forks it (Linux).

The messages between the processes are pickled objects on private socket pairs; nothing is read from files.
"""
