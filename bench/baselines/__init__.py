"""The systems of the laboratory: nearfetch, and those it is measured beside. Each states its options."""
