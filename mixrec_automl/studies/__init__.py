"""The paper's experiments, each a small declared grid that runs like a search."""
