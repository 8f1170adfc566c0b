"""A public kit for tests: slides drawn as files, slides drawn as codes, clusters that may be killed.

Lives here: what the project's own tests and those of its users need, and no test.
Never lives here: anything the product imports.
"""
