"""The networks themselves: layers, their seeded weights, and how pixels enter them.

Lives here: torch modules with the published parameter names, their initialisation, the order of the
codewords, the conditions under which results repeat. Never lives here: files of weights, slides,
keys, codes, Ray.
"""
