"""Validators that come with nearfetch, found by entry point like anybody else's. They may do I/O."""
