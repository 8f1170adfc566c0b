"""How the weights that ship were made, and how to make others.

Lives here: training programs, one per network or model. Never lives here: anything `sish` needs to
index or search.
"""
