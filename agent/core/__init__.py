"""The pure core: events and the time go in, commands come out. No I/O, no clock, no global randomness."""
