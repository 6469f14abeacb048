"""Demo and measurements. Not installed with the package; speaks to agents as a user does."""
