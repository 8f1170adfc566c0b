"""How the weights that ship were made, and how to make others.

Lives here: the one training loop (`loop`), its checkpoints, log and plots, the squares to train on
(`crops`), and one task for each network or model. Never lives here: anything `sish` needs to index or
search.
"""
