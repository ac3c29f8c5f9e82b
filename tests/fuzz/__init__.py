"""What a stranger may hand us, broken in every way that a generator finds: it is read, or refused in one line.

`make test` takes a few cases of each reader, always the same ones; `make fuzz` takes 10,000 that are new each time.
"""
