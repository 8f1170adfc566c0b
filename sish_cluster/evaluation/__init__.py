"""How good a collection's answers are: protocols, measures, calibration, and the pages that show them.

Lives here: leaving a patient or an institution out, the measures of ranked labels, timing, the
comparison of modes, rankings and encoders, calibration of the bounds.
Never lives here: how a search works (the cluster is asked like any client asks it), reading slides, torch.
"""
