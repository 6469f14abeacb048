"""Pure rules about other agents: who they are, who may, who vouches, what to evict."""
