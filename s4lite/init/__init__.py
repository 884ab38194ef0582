"""Where the parameters of a state space start."""
