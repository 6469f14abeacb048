"""`python -m bench sim SCENARIO`: the same core as the agents', under a virtual clock, with fair-shared links."""
