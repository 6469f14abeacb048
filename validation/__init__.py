"""Bottom layer: what content is, and when it is right. Pure, except `plugins`."""
