"""Top layer: jobs. The public library of nearfetch."""
