"""Middle layer: other agents. Imports only `validation` and itself."""
