"""Files of other programs, in and out: published SISH files, feature files, tables of postings.

Lives here: readers that build nothing but plain values from files nobody vouches for, and writers of the
same files. A slide that cannot be read is a value (`source.Unreadable`), never the end of an import.
Never lives here: a client, a network, an option; how keys and codes are made from pixels.
"""
