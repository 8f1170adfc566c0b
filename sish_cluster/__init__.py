"""Find the slides and regions that look like a slide, in archives of any size and any number of sites."""
